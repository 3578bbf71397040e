// Exactly one reflection service or none: linking the library already adds one to every server.
#ifndef COHORT_LAUNCHER_REFLECTION_OPTION_H_
#define COHORT_LAUNCHER_REFLECTION_OPTION_H_

#include <grpcpp/server_builder.h>

namespace cohort {

void SetReflection(grpc::ServerBuilder& builder, bool wanted);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_REFLECTION_OPTION_H_
