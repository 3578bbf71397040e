# COHORT_STATIC: programs that need no package where they run, only glibc and libstdc++ of Debian 12
# or newer. Debian's CMake files name the shared libraries of gRPC, Protobuf and abseil; the archives
# lie beside them. What has no archive (gloo and the libraries below it) stays shared: carry those
# files in ../lib beside the program's folder, or in the folder itself.
set(CMAKE_BUILD_RPATH "$ORIGIN/../lib;$ORIGIN")
set(CMAKE_FIND_LIBRARY_SUFFIXES .a .so)
# RPATH, not RUNPATH: it holds for the libraries that gloo needs as well.
string(APPEND CMAKE_EXE_LINKER_FLAGS " -Wl,--disable-new-dtags -Wl,--gc-sections")

# cohort_archive(result location): the archive beside a shared library, empty when there is none.
function(cohort_archive result location)
  string(REGEX REPLACE "[.]so[.0-9]*$" ".a" archive "${location}")
  if(archive STREQUAL location OR NOT EXISTS ${archive})
    set(archive "")
  endif()
  set(${result} "${archive}" PARENT_SCOPE)
endfunction()

# Points every imported shared library seen so far to its archive where there is one, and ends every
# later link line with all of those: inside one group their order does not matter.
function(cohort_use_archives)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  set(group "")
  foreach(target ${targets})
    get_target_property(type ${target} TYPE)
    if(NOT type STREQUAL SHARED_LIBRARY)
      continue()
    endif()
    get_target_property(configurations ${target} IMPORTED_CONFIGURATIONS)
    foreach(configuration ${configurations})
      get_target_property(location ${target} IMPORTED_LOCATION_${configuration})
      cohort_archive(archive "${location}")
      if(archive)
        set_target_properties(${target} PROPERTIES IMPORTED_LOCATION_${configuration} ${archive})
        list(APPEND group ${archive})
      endif()
    endforeach()
  endforeach()
  # What the shared libraries would have brought along by themselves.
  foreach(name address_sorting upb cares re2 ssl crypto z bsd md tinfo)
    find_library(COHORT_ARCHIVE_${name} lib${name}.a REQUIRED)
    list(APPEND group ${COHORT_ARCHIVE_${name}})
  endforeach()
  if(TARGET re2::re2)  # pkg-config's -lre2
    set_target_properties(re2::re2 PROPERTIES INTERFACE_LINK_LIBRARIES ${COHORT_ARCHIVE_re2})
  endif()
  list(REMOVE_DUPLICATES group)
  list(JOIN group "," joined)
  set(CMAKE_CXX_STANDARD_LIBRARIES "-Wl,--start-group,${joined},--end-group -lresolv" PARENT_SCOPE)
endfunction()
