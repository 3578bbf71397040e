#include "launcher/reflection_option.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/impl/server_builder_option.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace cohort {
namespace {

class ReflectionOption final : public grpc::ServerBuilderOption {
 public:
  using Plugin = grpc::reflection::ProtoServerReflectionPlugin;

  explicit ReflectionOption(bool wanted) : wanted_(wanted) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    const std::string name = Plugin().name();
    const auto is_reflection = [&name](const auto& plugin) { return plugin->name() == name; };
    plugins->erase(std::remove_if(plugins->begin(), plugins->end(), is_reflection), plugins->end());
    if (wanted_) plugins->push_back(std::make_unique<Plugin>());
  }

 private:
  const bool wanted_;
};

}  // namespace

void SetReflection(grpc::ServerBuilder& builder, bool wanted) {
  builder.SetOption(std::make_unique<ReflectionOption>(wanted));
}

}  // namespace cohort
