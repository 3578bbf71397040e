// Addresses of this machine: what can be listened on, who can reach it.
#ifndef COHORT_LAUNCHER_NETWORK_ADDRESS_H_
#define COHORT_LAUNCHER_NETWORK_ADDRESS_H_

#include <string>

#include "kernels/status.h"
#include "launcher/flag_values.h"

namespace cohort {

// OK when `listen`, the value of `flag`, can be bound now. Finds the common faults before anything
// is started.
absl::Status CheckListenAddress(StringView flag, const HostPort& listen);
absl::Status CannotListen(StringView flag, const HostPort& listen, StringView why);

// Who can send to a host's address: this machine only, or others; a wildcard (0.0.0.0) is every
// address of this machine. INVALID_ARGUMENT for a name that means nothing.
enum class AddressScope { kLoopback, kNetwork, kWildcard };
absl::StatusOr<AddressScope> ScopeOf(const std::string& host);

// The address of this machine from which packets to `remote` leave; sends nothing. UNAVAILABLE
// when there is no way there.
absl::StatusOr<std::string> AddressTowards(const HostPort& remote);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_NETWORK_ADDRESS_H_
