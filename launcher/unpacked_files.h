// Files that are part of the program, written out where other processes can open them by path.
#ifndef COHORT_LAUNCHER_UNPACKED_FILES_H_
#define COHORT_LAUNCHER_UNPACKED_FILES_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "kernels/status.h"

namespace cohort {

struct EmbeddedFile {
  StringView name;   // without a directory
  StringView bytes;  // of the program's image: valid for its whole life
};

// Makes `directory` hold exactly these bytes under these names. A file that already does is left
// alone; one that is missing, damaged or of another version is replaced in one step (written beside
// and renamed), so that a process that reads it at the same time sees a whole file, old or new. Any
// number of processes may do this at once.
// `directory` and its parents are made where they are missing (mode 0700). `base`, a part of its
// path, must belong to this user and be writable by nobody else: PERMISSION_DENIED. Other faults of
// the file system: its error, with the path.
absl::Status UnpackFiles(absl::Span<const EmbeddedFile> files, const std::string& base,
                         const std::string& directory);

// XDG_CACHE_HOME/cohort or HOME/.cache/cohort, which may not be there yet; empty where neither
// variable is an absolute path.
std::string CacheDirectory();

// Where this user's unpacked files may live, best first: XDG_CACHE_HOME/cohort or
// HOME/.cache/cohort, then TMPDIR/cohort-UID or /tmp/cohort-UID. Variables that are not absolute
// paths count as unset.
std::vector<std::string> UnpackBases();

// Unpacks into BASE/HASH/`name`, HASH being that of the contents, of the first base that works, and
// returns that directory. Versions of the program do not disturb each other. The error names every
// base that was tried.
absl::StatusOr<std::string> UnpackIntoCache(absl::Span<const EmbeddedFile> files,
                                            absl::Span<const std::string> bases,
                                            const std::string& name);

}  // namespace cohort

#endif  // COHORT_LAUNCHER_UNPACKED_FILES_H_
