/* A host whose wall clock is wrong: preloaded, it adds WALL_CLOCK_AHEAD_S seconds to CLOCK_REALTIME, and leaves the monotonic clock alone. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    const char *ahead = getenv("WALL_CLOCK_AHEAD_S");
    int status = (int)syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && clock == CLOCK_REALTIME && ahead)
        now->tv_sec += atol(ahead);
    return status;
}
