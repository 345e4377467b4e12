// The change list: what a turn's changes cost, over every backend with its calls counted, and what
// the kernel has been told in the end, against a model.
#include "../../native/core/change_list.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <deque>

#include "../../native/core/made.h"
#include "../../native/core/sys.h"
#include "check.h"
#include "fixture.h"

namespace multiloop::test {

namespace {

// A list over a backend whose calls are counted.
struct Subject {
  Subject(const BackendType& its_type, std::unique_ptr<Backend> backend)
      : type(its_type), watched(new Watched(std::move(backend))), list(take(watched)) {}

  bool has(std::uint8_t feature) const { return (type.features & feature) != 0; }
  int apply() {
    refused.clear();
    const int status = list.apply(&refused);
    EXPECT_TRUE(list.valid());
    return status;
  }
  // Changes that reached the backend since the last question.
  int changes() { return std::exchange(watched->changes, 0); }
  // What a wait tells of `fd`.
  int ready(int fd, Micros timeout = 0) {
    Ready out[64];
    const int count = watched->wait(timeout, out);
    int what = 0;
    for (int i = 0; i < count; ++i)
      if (out[i].fd == fd) what |= out[i].what;
    return what;
  }

  static std::unique_ptr<Backend> take(Watched* watched) {
    return std::unique_ptr<Backend>(watched);
  }

  const BackendType& type;
  Watched* const watched;
  ChangeList list;
  std::vector<int> refused;
};

struct SubjectTest {
  const BackendType* type;
  void (*body)(Subject& subject);

  static void run(const void* argument) {
    const auto* test = static_cast<const SubjectTest*>(argument);
    std::unique_ptr<Backend> backend = make_backend(*test->type);
    if (backend == nullptr) return;
    Subject subject(*test->type, std::move(backend));
    test->body(subject);
  }
};

bool add_for_each_backend(const std::string& name, void (*body)(Subject& subject)) {
  static std::deque<SubjectTest> tests;
  for (const BackendType& type : backend_types()) {
    tests.push_back({&type, body});
    check::add(__FILE__, name + " [" + type.name + "]", SubjectTest::run, &tests.back());
  }
  return true;
}

#define TEST_EACH_LIST(name)                                                         \
  void name(Subject& subject);                                                       \
  [[maybe_unused]] const bool registered_##name = add_for_each_backend(#name, name); \
  void name(Subject& subject)

// ── what a turn costs ───────────────────────────────────────────────────────────────────────

TEST_EACH_LIST(a_number_that_is_new_is_told_at_once) {
  Pair pair;
  EXPECT_EQ(subject.list.want(pair.near, kWrite, true), 0);
  EXPECT_EQ(subject.changes(), 1);
  EXPECT_EQ(subject.list.wanted(pair.near), kWrite);
  EXPECT_EQ(subject.list.in_kernel(pair.near), kWrite);
  EXPECT_EQ(subject.ready(pair.near), kWrite);
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_EQ(subject.changes(), 0);

  // A bad one is an error of the same call, and nothing is left of it.
  Pair closed;
  const int number = closed.far;
  closed.far.close();
  EXPECT_EQ(subject.list.want(number, kRead, true), -EBADF);
  EXPECT_EQ(subject.changes(), 1);
  EXPECT_EQ(subject.list.wanted(number), 0);
  EXPECT_EQ(subject.list.in_kernel(number), 0);
  EXPECT_TRUE(subject.list.valid());
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_EQ(subject.changes(), 0);
  EXPECT_TRUE(subject.refused.empty());
  // Numbers that nobody has named yet are unknown and no error.
  EXPECT_EQ(subject.list.wanted(-1), 0);
  EXPECT_EQ(subject.list.in_kernel(100'000), 0);
}

TEST_EACH_LIST(a_new_number_that_was_made_here_is_told_before_the_wait) {
  int ends[2];
  EXPECT_EQ(sys::socket_pair(ends), 0);
  const int number = ends[0];
  EXPECT_EQ(subject.list.want(number, kRead, true), 0);
  EXPECT_EQ(subject.list.want(number, 0, false), 0);
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_EQ(subject.changes(), 0);
  EXPECT_EQ(subject.list.want(number, kWrite, true), 0);
  EXPECT_EQ(subject.changes(), 0);
  EXPECT_EQ(subject.list.wanted(number), kWrite);
  EXPECT_EQ(subject.list.in_kernel(number), 0);
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_EQ(subject.changes(), 1);
  EXPECT_EQ(subject.ready(number), kWrite);

  // A duplicate is of the same kind; what was closed is of none.
  const int copy = sys::dup(number);
  EXPECT_EQ(subject.list.want(copy, kWrite, true), 0);
  EXPECT_EQ(subject.changes(), 0);
  subject.list.forget(copy);
  EXPECT_EQ(sys::close(copy), 0);
  EXPECT_EQ(subject.list.want(copy, kWrite, true), -EBADF);

  // Closed behind our back, it is found when it is told, and from then on tried at once.
  subject.list.forget(number);
  EXPECT_EQ(::close(number), 0);
  EXPECT_EQ(subject.list.want(number, kRead, true), 0);
  EXPECT_EQ(subject.apply(), 0);
  if (subject.has(kFeatureConstant)) {
    EXPECT_EQ(subject.refused, std::vector<int>{number});
    EXPECT_EQ(subject.list.want(number, kRead, true), -EBADF);
  }
  EXPECT_TRUE(subject.list.valid());
  sys::unmake(number);
  EXPECT_EQ(sys::close(ends[1]), 0);
}

TEST_EACH_LIST(what_comes_and_goes_in_one_turn_costs_nothing) {
  const Pair pair;
  EXPECT_EQ(subject.list.want(pair.near, kRead, true), 0);
  EXPECT_EQ(subject.list.want(pair.near, 0, false), 0);
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_EQ(subject.changes(), 2);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(subject.list.want(pair.near, kRead | kWrite, true), 0);
    EXPECT_EQ(subject.list.want(pair.near, kWrite, false), 0);
    EXPECT_EQ(subject.list.wanted(pair.near), kWrite);
    EXPECT_EQ(subject.list.want(pair.near, 0, false), 0);
    EXPECT_EQ(subject.apply(), 0);
    EXPECT_EQ(subject.changes(), 0);
    EXPECT_EQ(subject.list.in_kernel(pair.near), 0);
  }
  EXPECT_EQ(subject.ready(pair.near), 0);
}

TEST_EACH_LIST(what_goes_and_comes_back_in_one_turn_costs_nothing) {
  const Pair pair;
  EXPECT_EQ(subject.list.want(pair.near, kWrite, true), 0);
  EXPECT_EQ(subject.changes(), 1);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(subject.list.want(pair.near, 0, false), 0);
    EXPECT_EQ(subject.list.want(pair.near, kWrite, false), 0);
    EXPECT_EQ(subject.apply(), 0);
    EXPECT_EQ(subject.changes(), 0);
    EXPECT_EQ(subject.ready(pair.near), kWrite);
  }
}

TEST_EACH_LIST(a_change_of_mind_costs_one_call) {
  const Pair pair;
  send_byte(pair.far);
  EXPECT_EQ(subject.list.want(pair.near, kRead, true), 0);
  EXPECT_EQ(subject.changes(), 1);
  const Mask masks[] = {kRead | kWrite, kWrite, kRead, kRead | kWrite, 0};
  for (const Mask mask : masks) {
    // However often it changes on the way.
    EXPECT_EQ(subject.list.want(pair.near, kWrite, false), 0);
    EXPECT_EQ(subject.list.want(pair.near, kRead, false), 0);
    EXPECT_EQ(subject.list.want(pair.near, mask, false), 0);
    EXPECT_EQ(subject.changes(), 0);
    EXPECT_EQ(subject.apply(), 0);
    EXPECT_EQ(subject.changes(), 1);
    EXPECT_EQ(subject.list.in_kernel(pair.near), mask);
    EXPECT_EQ(subject.ready(pair.near), mask);
  }
}

TEST_EACH_LIST(a_number_that_may_be_another_file_is_told_although_nothing_changes) {
  const Pair old;
  const int number = old.near;
  EXPECT_EQ(subject.list.want(number, kRead, true), 0);
  EXPECT_EQ(subject.list.want(number, 0, false), 0);
  const Pair young;
  EXPECT_EQ(dup2(young.near, number), number);
  subject.changes();
  EXPECT_EQ(subject.list.want(number, kRead, true), 0);
  EXPECT_EQ(subject.changes(), 0);
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_EQ(subject.changes(), 1);
  send_byte(young.far);
  EXPECT_EQ(subject.ready(number), kRead);
  // Told once, it is certain.
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_EQ(subject.changes(), 0);
}

// ── at once ─────────────────────────────────────────────────────────────────────────────────

TEST_EACH_LIST(what_is_forgotten_leaves_the_kernel_at_once) {
  const Pair pair;
  EXPECT_EQ(subject.list.want(pair.near, kWrite, true), 0);
  subject.changes();
  subject.list.forget(pair.near);
  EXPECT_EQ(subject.changes(), 1);
  EXPECT_EQ(subject.ready(pair.near), 0);
  EXPECT_EQ(subject.list.wanted(pair.near), 0);
  EXPECT_TRUE(subject.list.valid());
  subject.list.forget(pair.near);
  subject.list.forget(-1);
  subject.list.forget(100'000);
  EXPECT_EQ(subject.changes(), 0);
  // It is new to the list again.
  EXPECT_EQ(subject.list.want(pair.near, kWrite, false), 0);
  EXPECT_EQ(subject.changes(), 1);
  EXPECT_EQ(subject.ready(pair.near), kWrite);

  // A change that was not told yet is forgotten with it.
  EXPECT_EQ(subject.list.want(pair.near, kRead | kWrite, true), 0);
  subject.list.forget(pair.near);
  EXPECT_EQ(subject.changes(), 1);
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_EQ(subject.changes(), 0);
  EXPECT_EQ(subject.ready(pair.near), 0);
}

TEST_EACH_LIST(a_removal_that_waits_is_made_at_once_for_who_forgets) {
  Pair pair;
  const Fd copy(sys::dup(pair.near));
  EXPECT_EQ(subject.list.want(pair.near, kWrite, true), 0);
  EXPECT_EQ(subject.list.want(pair.near, 0, false), 0);
  subject.changes();
  subject.list.forget(pair.near);
  EXPECT_EQ(subject.changes(), 1);
  pair.near.close();
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_EQ(subject.changes(), 0);
  const Micros begin = monotonic_now();
  EXPECT_EQ(subject.ready(copy, 5'000), 0);
  EXPECT_TRUE(monotonic_now() - begin >= 5'000);
  EXPECT_EQ(subject.watched->renewals(), 0);
}

TEST_EACH_LIST(watching_is_told_at_once_whatever_was_left_of_the_number) {
  const Pair old;
  const int number = old.near;
  EXPECT_EQ(subject.list.want(number, kRead, true), 0);
  EXPECT_EQ(subject.list.want(number, 0, false), 0);
  const Pair young;
  EXPECT_EQ(dup2(young.near, number), number);
  subject.changes();
  EXPECT_EQ(subject.list.watch(number, kRead), 0);
  EXPECT_EQ(subject.changes(), 1);
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_EQ(subject.changes(), 0);
  send_byte(young.far);
  EXPECT_EQ(subject.ready(number), kRead);
  subject.list.unwatch(number);
  EXPECT_EQ(subject.ready(number), 0);
  Pair closed;
  const int bad = closed.far;
  closed.far.close();
  EXPECT_EQ(subject.list.watch(bad, kRead), -EBADF);
  EXPECT_TRUE(subject.list.valid());
}

// ── refused ─────────────────────────────────────────────────────────────────────────────────

TEST_EACH_LIST(what_was_closed_meanwhile_is_reported_once) {
  Pair pair;
  const Pair young;
  const int number = pair.near;
  EXPECT_EQ(subject.list.want(number, kRead, true), 0);
  EXPECT_EQ(subject.list.want(number, kRead | kWrite, true), 0);
  pair.near.close();
  EXPECT_EQ(subject.apply(), 0);
  // poll and select find it when they wait, as long as it stays in their sets.
  if (!subject.has(kFeatureConstant)) {
    EXPECT_TRUE(subject.refused.empty());
    EXPECT_EQ(subject.ready(number), kRead | kWrite);
    return;
  }
  EXPECT_EQ(subject.refused, std::vector<int>{number});
  EXPECT_EQ(subject.list.in_kernel(number), 0);
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_TRUE(subject.refused.empty());
  // From then on it is unknown: still closed is an error of the call, open again is none.
  EXPECT_EQ(subject.list.want(number, kRead, true), -EBADF);
  EXPECT_EQ(dup2(young.near, number), number);
  const Fd again(number);
  EXPECT_EQ(subject.list.want(number, kWrite, true), 0);
  EXPECT_EQ(subject.ready(number), kWrite);
}

TEST_EACH_LIST(what_is_closed_before_its_removal_is_no_refusal) {
  Pair pair;
  EXPECT_EQ(subject.list.want(pair.near, kRead, true), 0);
  EXPECT_EQ(subject.list.want(pair.near, 0, false), 0);
  pair.near.close();
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_TRUE(subject.refused.empty());
}

TEST_EACH_LIST(a_kernel_out_of_memory_is_told_again) {
  for (const int refusal : {-ENOMEM, -ENOSPC}) {
    const Pair pair, other;
    EXPECT_EQ(subject.list.want(pair.near, kRead, true), 0);
    EXPECT_EQ(subject.list.want(other.near, kWrite, true), 0);
    EXPECT_EQ(subject.list.want(pair.near, kRead | kWrite, true), 0);
    EXPECT_EQ(subject.list.want(other.near, kRead, true), 0);
    subject.watched->refusal = refusal;
    for (int i = 0; i < 3; ++i) {
      subject.changes();
      EXPECT_EQ(subject.apply(), refusal);
      EXPECT_EQ(subject.changes(), 2);
      EXPECT_TRUE(subject.refused.empty());
    }
    subject.watched->refusal = 0;
    subject.changes();
    EXPECT_EQ(subject.apply(), 0);
    EXPECT_EQ(subject.changes(), 2);
    EXPECT_EQ(subject.ready(pair.near), kWrite);
    EXPECT_EQ(subject.ready(other.near), 0);
    EXPECT_EQ(subject.apply(), 0);
    EXPECT_EQ(subject.changes(), 0);
    subject.list.forget(pair.near);
    subject.list.forget(other.near);
  }
}

TEST_EACH_LIST(what_could_not_be_changed_for_want_of_memory_is_still_taken_out) {
  const Pair pair;
  EXPECT_EQ(subject.list.want(pair.near, kWrite, true), 0);
  EXPECT_EQ(subject.list.want(pair.near, kRead | kWrite, true), 0);
  subject.watched->refusal = -ENOMEM;
  EXPECT_EQ(subject.apply(), -ENOMEM);
  // The interest is as it was.
  EXPECT_EQ(subject.list.in_kernel(pair.near), kWrite);
  subject.watched->refusal = 0;
  EXPECT_EQ(subject.list.want(pair.near, 0, false), 0);
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_EQ(subject.ready(pair.near), 0);

  EXPECT_EQ(subject.list.want(pair.near, kWrite, true), 0);
  EXPECT_EQ(subject.apply(), 0);
  EXPECT_EQ(subject.list.want(pair.near, kRead, false), 0);
  subject.watched->refusal = -ENOMEM;
  EXPECT_EQ(subject.apply(), -ENOMEM);
  subject.watched->refusal = 0;
  subject.list.forget(pair.near);
  EXPECT_EQ(subject.ready(pair.near), 0);
}

// ── random ──────────────────────────────────────────────────────────────────────────────────

TEST_EACH_LIST(the_kernel_watches_what_is_wanted_after_random_turns) {
  Random random;
  std::vector<Pair> pairs(10);
  std::map<int, Mask> wanted;
  for (const Pair& pair : pairs) wanted[pair.near] = 0;
  for (int turn = 0; turn < 600; ++turn) {
    for (std::uint32_t steps = random.below(8); steps > 0; --steps) {
      Pair& pair = pairs[random.below(pairs.size())];
      const int fd = pair.near;
      switch (random.below(8)) {
        case 0:
          send_byte(pair.far);
          break;
        case 1:
          drain(fd);
          break;
        case 2: {
          // Another socket with this number; sometimes the old one lives on in a duplicate.
          static_cast<void>(subject.list.want(fd, 0, false));
          Pair young;
          EXPECT_EQ(dup2(young.near, fd), fd);
          pair.far = std::move(young.far);
          wanted[fd] = static_cast<Mask>(random.below(4) << 1);
          EXPECT_EQ(subject.list.want(fd, wanted[fd], true), 0);
          break;
        }
        case 3:
          if (random.below(4) != 0) break;
          subject.list.forget(fd);
          wanted[fd] = 0;
          break;
        default:
          wanted[fd] = static_cast<Mask>(random.below(4) << 1);
          EXPECT_EQ(subject.list.want(fd, wanted[fd], random.below(4) == 0), 0);
      }
      if (!EXPECT_TRUE(subject.list.valid())) return;
    }
    EXPECT_EQ(subject.apply(), 0);
    EXPECT_TRUE(subject.refused.empty());
    std::map<int, int> expected;
    for (const auto& [fd, mask] : wanted) {
      EXPECT_EQ(subject.list.in_kernel(fd), mask);
      pollfd one{fd, POLLIN | POLLOUT, 0};
      EXPECT_TRUE(::poll(&one, 1, 0) >= 0);
      int what = (one.revents & POLLIN) && (mask & kRead) ? kRead : 0;
      what |= (one.revents & POLLOUT) && (mask & kWrite) ? kWrite : 0;
      if (what != 0) expected[fd] = what;
    }
    Ready out[64];
    const int count = subject.watched->wait(0, out);
    std::map<int, int> told;
    for (int i = 0; i < count; ++i) told[out[i].fd] |= out[i].what;
    if (!EXPECT_TRUE(told == expected)) return;
  }
}

}  // namespace

// Over a kernel of which everything is known: numbers are closed under their interest, it runs out
// of memory, and calls are counted.
TEST(random_turns_agree_with_a_model_of_the_kernel) {
  constexpr int kNumbers = 12;
  struct Known {
    Mask wanted = 0;
    bool doubtful = true;  // it may name another file than it did when the list was last told
  };
  Random random;
  auto owned = std::make_unique<FakeKernel>();
  FakeKernel& kernel = *owned;
  ChangeList list(std::move(owned));
  std::vector<Known> numbers(kNumbers);
  std::vector<int> refused;
  for (int turn = 0; turn < 10'000; ++turn) {
    std::set<int> touched;
    for (std::uint32_t steps = random.below(10); steps > 0; --steps) {
      const auto fd = static_cast<int>(random.below(kNumbers));
      Known& known = numbers[static_cast<std::size_t>(fd)];
      switch (random.below(8)) {
        case 0:
          kernel.close(fd);
          known.doubtful = true;
          break;
        case 1:
          kernel.open(fd);
          known.doubtful = true;
          break;
        case 2:
          list.forget(fd);
          known = Known{};
          break;
        default: {
          const auto mask = static_cast<Mask>(random.below(4) << 1);
          // One that leaves has nothing to tell of the number.
          const bool tell = mask != 0 && (known.doubtful || random.below(8) == 0);
          if (const int status = list.want(fd, mask, tell); status < 0) {
            EXPECT_EQ(status, -EBADF);
            EXPECT_TRUE(!kernel.is_open(fd));
            break;
          }
          touched.insert(fd);
          known.wanted = mask;
          if (mask != 0) known.doubtful = false;
        }
      }
      if (!EXPECT_TRUE(list.valid())) return;
    }
    if (random.below(8) == 0) {
      kernel.refusal = random.below(2) == 0 ? -ENOMEM : -ENOSPC;
      refused.clear();
      const int status = list.apply(&refused);
      EXPECT_TRUE(status == 0 || status == kernel.refusal);
      EXPECT_TRUE(refused.empty() && list.valid());
      kernel.refusal = 0;
    }
    int before = kernel.changes;
    refused.clear();
    EXPECT_EQ(list.apply(&refused), 0);
    EXPECT_TRUE(list.valid());
    // One call each, and another for what is left of a number that was refused.
    EXPECT_TRUE(kernel.changes - before <= static_cast<int>(touched.size() + refused.size()));
    for (const int fd : refused) {
      EXPECT_TRUE(!kernel.is_open(fd));
      EXPECT_EQ(std::count(refused.begin(), refused.end(), fd), 1);
      // Its owner is told, and gives it up.
      EXPECT_EQ(list.want(fd, 0, false), 0);
      numbers[static_cast<std::size_t>(fd)] = Known{};
    }
    before = kernel.changes;
    refused.clear();
    EXPECT_EQ(list.apply(&refused), 0);
    EXPECT_TRUE(refused.empty());
    if (!EXPECT_EQ(kernel.changes, before)) return;
    for (int fd = 0; fd < kNumbers; ++fd) {
      const Known& known = numbers[static_cast<std::size_t>(fd)];
      // Whoever has not said yet that the number may be another file may not be watched.
      if (!kernel.is_open(fd) || known.doubtful) continue;
      if (!EXPECT_EQ(kernel.mask(fd), known.wanted)) return;
    }
  }
}

}  // namespace multiloop::test
