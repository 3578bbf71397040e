// Owns one file descriptor. Move-only.
#ifndef COHORT_LAUNCHER_FILE_DESCRIPTOR_H_
#define COHORT_LAUNCHER_FILE_DESCRIPTOR_H_

#include <unistd.h>

#include <utility>

namespace cohort {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    other.Close();
    return *this;
  }
  ~FileDescriptor() { Close(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

}  // namespace cohort

#endif  // COHORT_LAUNCHER_FILE_DESCRIPTOR_H_
