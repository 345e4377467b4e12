// Files of a folder that is served: opened below it, and never outside of it, whatever the path
// says and whoever swaps a part of it for a link meanwhile. Any thread may call. -errno on failure.
#pragma once

namespace multiloop::sys {

// A directory, for open_beneath().
[[nodiscard]] int open_folder(const char* path);

// Opens a regular file or a directory for reading. `path` is relative to the directory `folder`,
// "." for that itself. -EXDEV for what leads out of it, -ENXIO for what is neither: a FIFO or a
// device is not opened, unless it takes the place of a file in this very moment, and is closed
// then.
//
// Symbolic links are followed with `links` where the kernel keeps them inside (openat2(2), Linux
// 5.6), if they are relative; elsewhere, and without `links`, one is -ELOOP.
[[nodiscard]] int open_beneath(int folder, const char* path, bool links);

// Whether the kernel follows links inside of a folder.
[[nodiscard]] bool follows_beneath();

// For beneath*.cc: the descriptor if it is of a file or a directory, else it is closed; and a path
// opened name by name, from directory to directory, which follows no link.
[[nodiscard]] int only_served(int fd);
[[nodiscard]] int open_by_name(int folder, const char* path);

}  // namespace multiloop::sys
