// config.json of the published base models, embedded so that a name is enough for dummy weights and
// for planning.
#ifndef COHORT_RUNTIME_PUBLISHED_CONFIGS_H_
#define COHORT_RUNTIME_PUBLISHED_CONFIGS_H_

#include "absl/types/span.h"

namespace cohort {

struct PublishedModel {
  const char* name;
  const char* config_json;
};

// In order of size.
absl::Span<const PublishedModel> PublishedModels();

}  // namespace cohort

#endif  // COHORT_RUNTIME_PUBLISHED_CONFIGS_H_
