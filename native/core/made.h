// Which descriptor numbers are sockets and pipes that this process made through sys.h and has not
// closed through it. The kernel can watch each of them, so that telling it may wait until the end
// of a turn; a number that somebody else made may be no descriptor at all, or a file's, and has to
// be tried at once (change_list.h).
//
// A guess that may be wrong: a number that was closed behind our back stays here until it is made
// or closed again. Whoever asks has to bear a refusal by the kernel that comes late. Any thread may
// call.
#pragma once

namespace multiloop::sys {

// Notes a descriptor and answers it; an error passes through.
int made(int fd);
// It is about to be closed, or is of a kind that nobody knows.
void unmake(int fd);
bool was_made(int fd);

}  // namespace multiloop::sys
