#include "launcher/unpacked_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "launcher/file_descriptor.h"

namespace cohort {
namespace {

absl::Status SystemError(StringView doing, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot ", doing, " ", path));
}

absl::Status MakeDirectory(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  std::error_code ignored;
  if (!std::filesystem::exists(parent, ignored)) RETURN_IF_ERROR(MakeDirectory(parent.string()));
  if (mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return absl::OkStatus();
  return SystemError("make the directory", path);
}

// Otherwise somebody else could put other files in place of ours.
absl::Status CheckPrivate(const std::string& directory) {
  struct stat status;
  if (lstat(directory.c_str(), &status) != 0) return SystemError("look at", directory);
  if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() ||
      (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(directory, " is not a directory that only this user may write: remove it, or ",
                     "set XDG_CACHE_HOME to another place"));
  }
  return absl::OkStatus();
}

bool Holds(const std::string& path, StringView bytes) {
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat status;
  if (!file.valid() || fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode) ||
      static_cast<uint64_t>(status.st_size) != bytes.size()) {
    return false;
  }
  std::array<char, 65536> piece;
  while (!bytes.empty()) {
    const ssize_t count = read(file.get(), piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0 ||
        !absl::StartsWith(bytes, StringView(piece.data(), static_cast<size_t>(count))))
      return false;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

absl::Status WriteAll(int fd, StringView bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t count = write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError("write", path);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  if (fchmod(fd, 0444) != 0) return SystemError("write", path);
  return absl::OkStatus();
}

absl::Status Replace(const EmbeddedFile& file, const std::string& path) {
  std::string temporary = absl::StrCat(path, ".XXXXXX");
  const FileDescriptor fd(mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd.valid()) return SystemError("create", temporary);
  absl::Status status = WriteAll(fd.get(), file.bytes, temporary);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = SystemError("rename into place", path);
  }
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

// FNV-1a: names a directory; what is in it is compared byte by byte.
uint64_t HashOf(absl::Span<const EmbeddedFile> files) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&hash](StringView text) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  };
  for (const EmbeddedFile& file : files) {
    add(file.name);
    add(file.bytes);
  }
  return hash;
}

// Empty when unset or not an absolute path.
std::string AbsoluteVariable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && value[0] == '/' ? value : "";
}

}  // namespace

absl::Status UnpackFiles(absl::Span<const EmbeddedFile> files, const std::string& base,
                         const std::string& directory) {
  RETURN_IF_ERROR(MakeDirectory(base));
  RETURN_IF_ERROR(CheckPrivate(base));
  RETURN_IF_ERROR(MakeDirectory(directory));
  for (const EmbeddedFile& file : files) {
    const std::string path = absl::StrCat(directory, "/", file.name);
    if (!Holds(path, file.bytes)) RETURN_IF_ERROR(Replace(file, path));
  }
  return absl::OkStatus();
}

std::string CacheDirectory() {
  const std::string cache = AbsoluteVariable("XDG_CACHE_HOME");
  const std::string home = AbsoluteVariable("HOME");
  return !cache.empty() ? cache + "/cohort" : !home.empty() ? home + "/.cache/cohort" : "";
}

std::vector<std::string> UnpackBases() {
  std::vector<std::string> bases;
  if (std::string cache = CacheDirectory(); !cache.empty()) bases.push_back(std::move(cache));
  const std::string temporary = AbsoluteVariable("TMPDIR");
  bases.push_back(absl::StrCat(temporary.empty() ? "/tmp" : temporary, "/cohort-", geteuid()));
  return bases;
}

absl::StatusOr<std::string> UnpackIntoCache(absl::Span<const EmbeddedFile> files,
                                            absl::Span<const std::string> bases,
                                            const std::string& name) {
  const std::string hash = absl::StrFormat("%016x", HashOf(files));
  std::vector<std::string> faults;
  for (const std::string& base : bases) {
    std::string directory = absl::StrCat(base, "/", hash, "/", name);
    const absl::Status status = UnpackFiles(files, base, directory);
    if (status.ok()) return directory;
    faults.emplace_back(status.message());
  }
  return absl::UnavailableError(absl::StrCat("no place to unpack the embedded checkpoint '", name,
                                             "': ", absl::StrJoin(faults, "; ")));
}

}  // namespace cohort
