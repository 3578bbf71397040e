#include "launcher/network_address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "launcher/file_descriptor.h"

namespace cohort {
namespace {

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

// The message is getaddrinfo's.
absl::StatusOr<AddressList> Resolve(const HostPort& address, int type, int flags) {
  addrinfo hints = {};
  hints.ai_socktype = type;
  hints.ai_flags = flags | AI_NUMERICSERV;
  // What looks like an address is not looked up as a name, which may take long to fail.
  const bool is_numeric = address.host.find_first_not_of("0123456789.") == std::string::npos ||
                          address.host.find(':') != std::string::npos;
  if (is_numeric) hints.ai_flags |= AI_NUMERICHOST;
  addrinfo* found = nullptr;
  const int resolved =
      getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (resolved != 0) return absl::InvalidArgumentError(gai_strerror(resolved));
  return AddressList(found, freeaddrinfo);
}

// 0 or the errno of binding one resolved address.
int TryBind(const addrinfo& address) {
  const FileDescriptor socket_fd(socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket_fd.valid()) return errno;
  const int on = 1;
  // As gRPC does: a port in TIME_WAIT is free.
  if (setsockopt(socket_fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      bind(socket_fd.get(), address.ai_addr, address.ai_addrlen) != 0 ||
      listen(socket_fd.get(), 1) != 0) {
    return errno;
  }
  return 0;
}

AddressScope ScopeOfSocketAddress(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const auto& ip = reinterpret_cast<const sockaddr_in&>(address);
    const uint32_t number = ntohl(ip.sin_addr.s_addr);
    if (number == INADDR_ANY) return AddressScope::kWildcard;
    return number >> 24 == 127 ? AddressScope::kLoopback : AddressScope::kNetwork;
  }
  const auto& ip = reinterpret_cast<const sockaddr_in6&>(address);
  if (IN6_IS_ADDR_UNSPECIFIED(&ip.sin6_addr)) return AddressScope::kWildcard;
  return IN6_IS_ADDR_LOOPBACK(&ip.sin6_addr) ? AddressScope::kLoopback : AddressScope::kNetwork;
}

}  // namespace

absl::Status CannotListen(StringView flag, const HostPort& listen, StringView why) {
  return absl::UnavailableError(
      absl::StrCat(flag, " ", listen.ToString(), ": cannot listen there: ", why));
}

absl::Status CheckListenAddress(StringView flag, const HostPort& listen) {
  const absl::StatusOr<AddressList> found = Resolve(listen, SOCK_STREAM, AI_PASSIVE);
  if (!found.ok()) return CannotListen(flag, listen, found.status().message());
  int error = 0;
  for (const addrinfo* address = found->get(); address != nullptr; address = address->ai_next) {
    error = TryBind(*address);
    if (error == 0) return absl::OkStatus();
  }
  return CannotListen(flag, listen, std::strerror(error));
}

absl::StatusOr<AddressScope> ScopeOf(const std::string& host) {
  const absl::StatusOr<AddressList> found = Resolve({host, 0}, SOCK_STREAM, 0);
  if (!found.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", host, "' is no address: ", found.status().message()));
  }
  // A name may mean several addresses: the one that most can reach counts.
  AddressScope scope = AddressScope::kLoopback;
  for (const addrinfo* address = found->get(); address != nullptr; address = address->ai_next) {
    const AddressScope one = ScopeOfSocketAddress(*address->ai_addr);
    if (one == AddressScope::kWildcard) return one;
    if (one == AddressScope::kNetwork) scope = one;
  }
  return scope;
}

absl::StatusOr<std::string> AddressTowards(const HostPort& remote) {
  const auto failed = [&remote](StringView why) {
    return absl::UnavailableError(
        absl::StrCat("no way from this machine to ", remote.ToString(), ": ", why));
  };
  const absl::StatusOr<AddressList> found = Resolve(remote, SOCK_DGRAM, 0);
  if (!found.ok()) return failed(found.status().message());
  int error = 0;
  for (const addrinfo* address = found->get(); address != nullptr; address = address->ai_next) {
    const FileDescriptor socket_fd(socket(address->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage own = {};
    socklen_t length = sizeof(own);
    std::array<char, NI_MAXHOST> text{};
    // Connecting a datagram socket only looks the way up.
    if (!socket_fd.valid() ||
        connect(socket_fd.get(), address->ai_addr, address->ai_addrlen) != 0 ||
        getsockname(socket_fd.get(), reinterpret_cast<sockaddr*>(&own), &length) != 0) {
      error = errno;
      continue;
    }
    if (getnameinfo(reinterpret_cast<const sockaddr*>(&own), length, text.data(), text.size(),
                    nullptr, 0, NI_NUMERICHOST) == 0) {
      return std::string(text.data());
    }
  }
  return failed(std::strerror(error));
}

}  // namespace cohort
