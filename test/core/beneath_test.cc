// Files are opened below a folder and nowhere else.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>

#include "../../native/core/beneath.h"
#include "../../native/core/sys.h"
#include "check.h"

namespace multiloop::test {

namespace {

void put(const std::string& path) {
  const int fd = ::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  EXPECT_EQ(sys::write(fd, "x", 1), 1);
  sys::close(fd);
}

// top/secret, top/site/{file, folder/inner, fifo} and links.
struct Site {
  std::string top;
  int folder = -1;

  Site() {
    char name[] = "/tmp/multiloop-beneath-XXXXXX";
    top = ::mkdtemp(name);
    const std::string site = top + "/site";
    EXPECT_EQ(::mkdir(site.c_str(), 0700), 0);
    EXPECT_EQ(::mkdir((site + "/folder").c_str(), 0700), 0);
    put(top + "/secret");
    put(site + "/file");
    put(site + "/folder/inner");
    EXPECT_EQ(::mkfifo((site + "/fifo").c_str(), 0600), 0);
    EXPECT_EQ(::symlink("../secret", (site + "/out").c_str()), 0);
    EXPECT_EQ(::symlink("..", (site + "/up").c_str()), 0);
    EXPECT_EQ(::symlink("/dev/null", (site + "/device").c_str()), 0);
    EXPECT_EQ(::symlink("folder", (site + "/in").c_str()), 0);
    folder = sys::open_folder(site.c_str());
    EXPECT_EQ(folder >= 0, true);
  }
  ~Site() {
    sys::close(folder);
    const std::string site = top + "/site/";
    for (const char* name : {"file", "folder/inner", "fifo", "out", "up", "device", "in"})
      ::unlink((site + name).c_str());
    ::rmdir((site + "folder").c_str());
    ::rmdir(site.c_str());
    ::unlink((top + "/secret").c_str());
    ::rmdir(top.c_str());
  }

  // 0 or -errno; what was opened is closed.
  int open(const char* path, bool links = true) const {
    const int fd = sys::open_beneath(folder, path, links);
    if (fd < 0) return fd;
    char byte = 0;
    const long count = sys::read(fd, &byte, 1);
    EXPECT_EQ(count == 1 || count == -EISDIR, true);
    return sys::close(fd);
  }
};

}  // namespace

TEST(what_is_in_a_folder_is_opened_and_nothing_else) {
  const Site site;
  for (const char* path : {".", "file", "folder", "folder/inner"}) EXPECT_EQ(site.open(path), 0);
  EXPECT_EQ(site.open("nothing"), -ENOENT);
  EXPECT_EQ(site.open("folder/nothing/inner"), -ENOENT);
  EXPECT_EQ(site.open("file/inner"), -ENOTDIR);
  EXPECT_EQ(site.open("fifo"), -ENXIO);
  EXPECT_EQ(site.open(std::string(300, 'x').c_str()), -ENAMETOOLONG);
  for (const char* path : {"..", "../secret", "folder/../../secret", "/etc/passwd"})
    EXPECT_EQ(site.open(path), -EXDEV);
}

TEST(links_lead_nowhere_outside) {
  const Site site;
  const bool follows = sys::follows_beneath();
  for (const char* path : {"out", "up", "up/secret", "device"}) {
    const int status = site.open(path);
    if (follows) EXPECT_EQ(status, -EXDEV);
    EXPECT_EQ(status == -EXDEV || status == -ELOOP || status == -ENOTDIR, true);
    EXPECT_EQ(site.open(path, false) < 0, true);
  }
  EXPECT_EQ(site.open("in/inner"), follows ? 0 : -ENOTDIR);
  EXPECT_EQ(site.open("in/inner", false) < 0, true);
}

TEST(a_folder_is_a_directory_that_is_there) {
  const Site site;
  EXPECT_EQ(sys::open_folder((site.top + "/secret").c_str()), -ENOTDIR);
  EXPECT_EQ(sys::open_folder((site.top + "/nothing").c_str()), -ENOENT);
}

}  // namespace multiloop::test
