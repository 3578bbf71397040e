#include "launcher/rank.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kernels/plugin_device.h"
#include "launcher/allowed_cores.h"
#include "launcher/byte_ring.h"
#include "launcher/gpu_placement.h"
#include "launcher/log.h"
#include "launcher/nccl_log.h"
#include "launcher/rank_control.h"
#include "launcher/rank_groups.h"
#include "launcher/rank_memory.h"
#include "launcher/step_loop.h"
#include "launcher/unpacked_files.h"
#include "parallel/silent_communicator.h"
#include "runtime/step_buckets.h"
#include "runtime/worker.h"

namespace cohort {
namespace {

constexpr absl::Duration kProgressPeriod = absl::Milliseconds(100);
// For the ranks that connect the other nodes to listen, and to be connected. Less than the time in
// which the coordinator wants all ranks to have joined, so that it hears from us who is missing.
constexpr absl::Duration kPeersTimeout = absl::Seconds(20);
// Before sleeping, where every rank has a core.
constexpr int kSpinIterations = 2000;

// The coordinator decides when ranks end. A Ctrl-C of the terminal reaches the whole process group.
void IgnoreSignals() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) std::signal(number, SIG_IGN);
}

absl::StatusOr<DType> ParseDType(StringView name) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    if (NameOf(dtype) == name) return dtype;
  }
  return absl::InvalidArgumentError(absl::StrCat("dtype '", name, "' is neither fp32 nor bf16"));
}

ModelOverrides OverridesOf(const v1::RankConfiguration& configuration) {
  ModelOverrides overrides;
  if (configuration.has_yarn()) {
    overrides.yarn = {configuration.yarn().factor(), configuration.yarn().original_positions()};
  }
  overrides.yarn_auto = configuration.yarn_auto();
  if (configuration.has_dual_chunks()) {
    overrides.dual_chunk = {configuration.dual_chunks().chunk_size(),
                            configuration.dual_chunks().local_size(),
                            configuration.dual_chunks().original_positions()};
  }
  return overrides;
}

absl::StatusOr<std::optional<ExpertExchangeKind>> ParseExchange(StringView name,
                                                                StringView device) {
  if (name.empty() || name == "auto") {
    if (device == "cuda") return ExpertExchangeKind::kReplicated;  // the only one there
    return std::nullopt;
  }
  if (name == "replicated") return ExpertExchangeKind::kReplicated;
  if (name == "all-to-all") return ExpertExchangeKind::kAllToAll;
  return absl::InvalidArgumentError(
      absl::StrCat("expert_exchange '", name, "' is neither replicated nor all-to-all nor auto"));
}

PeerReduction ParsePeerReduction(StringView word) {
  if (word == "never") return PeerReduction::kNever;
  return word == "always" ? PeerReduction::kAlways : PeerReduction::kAuto;
}

absl::StatusOr<std::optional<bool>> ParseSwitch(StringView name, StringView word) {
  if (word.empty() || word == "auto") return std::nullopt;
  if (word == "on" || word == "off") return word == "on";
  return absl::InvalidArgumentError(
      absl::StrCat(name, " '", word, "' is neither on nor off nor auto"));
}

// In the user's cache, whose directory is made; empty where there is none.
std::string UsualTuningFile() {
  const std::string directory = CacheDirectory();
  std::error_code error;
  if (directory.empty()) return "";
  std::filesystem::create_directories(directory, error);
  return error ? "" : directory + "/products.txt";
}

absl::StatusOr<WorkerOptions> MakeWorkerOptions(const v1::ConfigureRank& configure) {
  const v1::RankConfiguration& configuration = configure.configuration();
  WorkerOptions options;
  ASSIGN_OR_RETURN(options.dtype, ParseDType(configuration.dtype()));
  ASSIGN_OR_RETURN(options.expert_exchange,
                   ParseExchange(configuration.expert_exchange(), configuration.device()));
  options.model_dir = configuration.model();
  options.dummy_weights = configuration.dummy_weights();
  options.mask_padding = configuration.mask_padding();
  options.token_ids = configuration.token_ids();
  options.parallelism = {.tp = static_cast<int>(configuration.tensor_parallel()),
                         .dp = static_cast<int>(configuration.data_parallel()),
                         .ep = static_cast<int>(configuration.expert_parallel())};
  options.rank = static_cast<int>(configure.rank());
  options.kv_blocks = configuration.kv_blocks();
  options.block_size = configuration.block_size();
  options.max_batch_tokens = configuration.max_batch_tokens();
  options.max_running = configuration.max_running();
  options.max_model_len = configuration.max_model_len();
  options.host_embedding = configuration.host_embedding();
  ASSIGN_OR_RETURN(const std::optional<bool> tunes,
                   ParseSwitch("product_tuning", configuration.product_tuning()));
  options.tune_products = tunes.value_or(configuration.device() == "cuda");
  options.tuning_file = configuration.tuning_file();
  if (options.tune_products && options.tuning_file.empty()) options.tuning_file = UsualTuningFile();
  if (configuration.simulated_size() > 0) {
    options.is_simulated = true;
    options.parallelism = {.tp = static_cast<int>(configuration.simulated_size())};
    options.rank = static_cast<int>(configuration.simulated_rank());
  }
  // As the communicators' own: a rank can tell what it waited for before it is taken for lost.
  options.step_timeout = absl::Milliseconds(configuration.step_timeout_milliseconds()) * 9 / 10;
  return options;
}

void SayLost(RankControl& control, const absl::Status& status) {
  v1::RankToAgent message;
  v1::RankLost& lost = *message.mutable_lost();
  lost.set_reason(std::string(status.message()));
  lost.set_status_code(static_cast<int32_t>(status.code()));
  lost.set_permanent(true);  // the same start meets the same checkpoint and the same memory
  control.Say(message);
}

// One rank process, on its main thread.
class RankMain {
 public:
  RankMain(RankControl& control, v1::ConfigureRank configure, NcclLog& nccl_log)
      : control_(control),
        nccl_log_(nccl_log),
        configure_(std::move(configure)),
        local_ranks_(std::max(1, static_cast<int>(configure_.local_ranks()))),
        spin_iterations_(local_ranks_ <= AllowedCores() ? kSpinIterations : 0),
        step_timeout_(absl::Milliseconds(configure_.configuration().step_timeout_milliseconds())) {}

  absl::Status Load();
  void ServeEpoch();

 private:
  absl::StatusOr<std::unique_ptr<Device>> CreateDevice();
  void SayLoading(int64_t done_bytes, int64_t total_bytes);
  void LogTuning(const ProductTuning& tuning) const;
  void SayReady();
  void SayFailed(uint64_t epoch, const absl::Status& status, bool joined, bool peers);
  absl::Status Prepare(EpochInvitation invitation);
  absl::Status Join(uint64_t epoch);
  absl::Status ConnectGroups(uint64_t epoch);
  void AbortEpoch();

  RankControl& control_;
  NcclLog& nccl_log_;
  const v1::ConfigureRank configure_;
  const int local_ranks_;
  const int spin_iterations_;
  const absl::Duration step_timeout_;
  std::string device_;
  Device* computer_ = nullptr;  // the worker's
  std::string transport_;       // to the GPUs of the group, as joined last
  int64_t total_bytes_ = 0;     // of the load
  absl::Time last_progress_ = absl::InfinitePast();
  std::unique_ptr<Worker> worker_;
  // Of the present epoch. Abort from the control thread.
  std::unique_ptr<ByteRingReader> plans_;
  std::unique_ptr<ByteRingWriter> outcomes_;
  std::unique_ptr<RankGroups> groups_;
};

absl::StatusOr<std::unique_ptr<Device>> RankMain::CreateDevice() {
  const v1::RankConfiguration& configuration = configure_.configuration();
  DeviceOptions options;
  options.kind = configuration.device();
  options.index = static_cast<int>(configure_.local_index());
  options.threads = configuration.threads() > 0 ? static_cast<int>(configuration.threads())
                                                : std::max(1, AllowedCores() / local_ranks_);
  if (options.kind == "cuda") {
    ASSIGN_OR_RETURN(const int gpus, PluginDeviceCount());
    ASSIGN_OR_RETURN(options.index,
                     GpuOf(options.index, local_ranks_, gpus, configuration.allow_shared_gpu()));
  }
  ASSIGN_OR_RETURN(options.record_steps,
                   ParseSwitch("recorded_steps", configuration.recorded_steps()));
  ASSIGN_OR_RETURN(options.persistent_steps,
                   ParseSwitch("persistent_steps", configuration.persistent_steps()));
  // Blocks of two such kernels on one GPU, half of each there, would wait for each other's place.
  if (configuration.allow_shared_gpu() && !options.persistent_steps.has_value()) {
    options.persistent_steps = false;
  }
  return Device::Create(options);
}

absl::Status RankMain::Load() {
  const v1::RankConfiguration& configuration = configure_.configuration();
  ASSIGN_OR_RETURN(ModelConfig config,
                   ParseModelConfig(configuration.config_json(), configuration.model(),
                                    OverridesOf(configuration)));
  config.eos_token_ids.assign(configuration.eos_token_ids().begin(),
                              configuration.eos_token_ids().end());
  ASSIGN_OR_RETURN(const WorkerOptions options, MakeWorkerOptions(configure_));
  ASSIGN_OR_RETURN(std::unique_ptr<Device> device, CreateDevice());
  device_ = device->description();
  computer_ = device.get();
  ASSIGN_OR_RETURN(worker_, Worker::Create(config, options, std::move(device),
                                           [this](int64_t done_bytes, int64_t total_bytes) {
                                             SayLoading(done_bytes, total_bytes);
                                           }));
  LogTuning(worker_->tuning());
  SayReady();
  return absl::OkStatus();
}

void RankMain::SayLoading(int64_t done_bytes, int64_t total_bytes) {
  total_bytes_ = total_bytes;
  const absl::Time now = absl::Now();
  if (now - last_progress_ < kProgressPeriod && done_bytes < total_bytes) return;
  last_progress_ = now;
  v1::RankToAgent message;
  v1::RankProgress& progress = *message.mutable_progress();
  progress.set_state("loading");
  progress.set_done_bytes(done_bytes);
  progress.set_total_bytes(total_bytes);
  progress.set_device(device_);
  control_.Say(message);
}

void RankMain::LogTuning(const ProductTuning& tuning) const {
  if (tuning.known + tuning.measured > 0) {
    LogInfo("products_tuned",
            {{"rank", configure_.rank()}, {"known", tuning.known}, {"measured", tuning.measured}});
  }
  if (!tuning.note.empty()) {
    LogWarning("product_tuning", {{"rank", configure_.rank()}, {"message", tuning.note}});
  }
}

void RankMain::SayReady() {
  v1::RankToAgent message;
  v1::RankProgress& progress = *message.mutable_progress();
  progress.set_state("ready");
  progress.set_done_bytes(total_bytes_);
  progress.set_total_bytes(total_bytes_);
  progress.set_weight_bytes(worker_->weight_bytes());
  progress.set_kv_bytes(worker_->kv_bytes());
  *progress.mutable_planned() = ToMessage(worker_->planned_memory());
  *progress.mutable_allocated() = ToMessage(worker_->allocated_memory());
  progress.set_device(device_);
  progress.set_transport(transport_);
  for (std::string& warning : worker_->warnings()) progress.add_warnings(std::move(warning));
  control_.Say(message);
}

void RankMain::SayFailed(uint64_t epoch, const absl::Status& status, bool joined, bool peers) {
  v1::RankToAgent message;
  v1::EpochFailed& failed = *message.mutable_epoch_failed();
  failed.set_epoch(epoch);
  failed.set_reason(std::string(status.message()));
  failed.set_joined(joined);
  failed.set_peers(peers);
  control_.Say(message);
}

// One epoch from its invitation to its end.
void RankMain::ServeEpoch() {
  EpochInvitation invitation = control_.WaitForEpoch();
  const uint64_t epoch = invitation.begin.epoch();
  absl::Status status = Prepare(std::move(invitation));
  const bool entered = status.ok() && control_.Enter([this] { AbortEpoch(); });
  if (entered && groups_->connects()) status = ConnectGroups(epoch);
  const bool is_unconnected = !status.ok() && entered;
  if (entered && status.ok()) status = Join(epoch);
  const bool joined = entered && status.ok();
  if (joined) {
    v1::RankToAgent message;
    message.mutable_epoch_joined()->set_epoch(epoch);
    control_.Say(message);
    status = StepLoop(*worker_, *plans_, *outcomes_, step_timeout_).Run();
  }
  if (!status.ok() && !control_.MustLeave()) {
    LogWarning("rank_failed",
               {{"rank", configure_.rank()}, {"epoch", epoch}, {"reason", status.message()}});
    SayFailed(epoch, status, joined, is_unconnected);
  }
  control_.Exit([this] {
    worker_->LeaveEpoch();
    plans_.reset();
    outcomes_.reset();
    groups_.reset();
  });
}

// What an abort of the epoch has to reach.
absl::Status RankMain::Prepare(EpochInvitation invitation) {
  std::vector<FileDescriptor>& descriptors = invitation.descriptors;
  if (descriptors.size() < 2) {
    return absl::InvalidArgumentError(absl::StrCat("an epoch came with ", descriptors.size(),
                                                   " descriptors; those of two rings are needed"));
  }
  ASSIGN_OR_RETURN(plans_, ByteRingReader::Map(descriptors[0].get(), spin_iterations_));
  ASSIGN_OR_RETURN(outcomes_, ByteRingWriter::Map(descriptors[1].get(), spin_iterations_));
  RankGroupsOptions options;
  options.rank = static_cast<int>(configure_.rank());
  options.address = configure_.address();
  // A little before the coordinator's own deadline: a rank can tell whom it waited for.
  options.timeout = step_timeout_ * 9 / 10;
  options.connect_timeout = kPeersTimeout;
  options.spin_iterations = spin_iterations_;
  options.gpu = computer_->kind() == "cuda" ? computer_ : nullptr;
  options.nccl_log = &nccl_log_;
  options.requirements = {.nvlink = configure_.configuration().require_nvlink(),
                          .rdma = configure_.configuration().require_rdma()};
  options.peer_reduction = ParsePeerReduction(configure_.configuration().peer_reduction());
  const v1::ReductionSizes& sizes = configure_.configuration().reduction_sizes();
  options.reduction_sizes = {sizes.are_measured(), sizes.one_shot(), sizes.two_shot()};
  std::vector<FileDescriptor> regions(std::make_move_iterator(descriptors.begin() + 2),
                                      std::make_move_iterator(descriptors.end()));
  ASSIGN_OR_RETURN(groups_, RankGroups::Prepare(options, invitation.begin, std::move(regions)));
  return absl::OkStatus();
}

absl::Status RankMain::Join(uint64_t epoch) {
  absl::StatusOr<RankCommunicators> made = groups_->MakeCommunicators();
  if (absl::IsFailedPrecondition(made.status())) {
    SayLost(control_, made.status());
    _exit(1);  // the others wait for this rank, and every start ends so
  }
  RETURN_IF_ERROR(made.status());
  RankCommunicators& communicators = *made;
  if (const v1::RankConfiguration& configuration = configure_.configuration();
      configuration.simulated_size() > 0) {
    ASSIGN_OR_RETURN(
        communicators.tensor,
        MakeSilentCommunicator(*computer_, static_cast<int>(configuration.simulated_rank()),
                               static_cast<int>(configuration.simulated_size()),
                               std::max(configuration.max_batch_tokens(), kMaxRecordedRows)));
  }
  if (!communicators.transport.empty()) {
    transport_ = communicators.transport;
    LogInfo("transport", {{"rank", configure_.rank()}, {"epoch", epoch}, {"gpus", transport_}});
    SayReady();
  }
  return worker_->JoinEpoch(epoch, std::move(communicators.tensor), std::move(communicators.data));
}

// Tells the other ranks how to reach this one, and connects to them.
absl::Status RankMain::ConnectGroups(uint64_t epoch) {
  if (groups_->listens()) {
    v1::RankToAgent message;
    v1::EpochListeners& listeners = *message.mutable_listeners();
    listeners = groups_->listeners();
    listeners.set_epoch(epoch);
    control_.Say(message);
  }
  ASSIGN_OR_RETURN(const v1::EpochPeers peers, control_.WaitForPeers(absl::Now() + kPeersTimeout));
  return groups_->Connect(peers);
}

void RankMain::AbortEpoch() {
  const absl::Status reason = absl::UnavailableError("the epoch has ended");
  groups_->Abort();
  worker_->Abort();
  plans_->Abort(reason);
  outcomes_->Abort(reason);
}

}  // namespace

int RunRank(int control_fd) {
  IgnoreSignals();
  if (fcntl(control_fd, F_SETFD, FD_CLOEXEC) != 0) {
    LogError("rank_failed", {{"reason", absl::StrCat("descriptor ", control_fd,
                                                     " is no control socket: ranks are started "
                                                     "by `cohort serve`")}});
    return 1;
  }
  NcclLog nccl_log = NcclLog::Capture();  // before there are threads
  RankControl control((ControlSocket(FileDescriptor(control_fd))));
  v1::ConfigureRank configure = control.WaitForConfiguration();
  prctl(PR_SET_NAME, absl::StrCat("cohort rank ", configure.rank()).c_str());
  RankMain rank(control, std::move(configure), nccl_log);
  const absl::Status loaded = rank.Load();
  if (!loaded.ok()) {
    SayLost(control, loaded);
    return 1;
  }
  for (;;) rank.ServeEpoch();
}

}  // namespace cohort
