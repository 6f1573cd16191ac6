/*
 * For LD_PRELOAD: lets system calls on files whose names end in ".bad" go wrong while a process runs.
 *
 * The directory BADDISK says how.  A file "read", "write" or "sync" in it is for these calls; it holds an error
 * number with which they fail, or nothing at all: then they hang until it is gone.  A call that does not fail is
 * the system's own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int isBad(int fd)
{
    char name[64], path[4096];
    ssize_t length;

    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    length = readlink(name, path, sizeof path);
    return length > 4 && memcmp(path + length - 4, ".bad", 4) == 0;
}

/* The error number for such a call, 0 if it is to be made. */
static int rule(int fd, const char *call)
{
    const char *directory = getenv("BADDISK");
    char path[4096], text[16];

    if (directory == NULL || !isBad(fd))
        return 0;
    snprintf(path, sizeof path, "%s/%s", directory, call);
    for (;;) {
        int file = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t length;

        if (file < 0)
            return 0;
        length = read(file, text, sizeof text - 1);
        close(file);
        if (length > 0) {
            text[length] = 0;
            return atoi(text);
        }
        usleep(5000);
    }
}

#define FAIL_BY_RULE(call) \
    do { \
        int number = rule(fd, call); \
        if (number != 0) { \
            errno = number; \
            return -1; \
        } \
    } while (0)

#define NEXT(name) \
    static __typeof__(name) *next; \
    if (next == NULL) \
        next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t pread64(int fd, void *data, size_t length, off64_t offset)
{
    NEXT(pread64);
    FAIL_BY_RULE("read");
    return next(fd, data, length, offset);
}

ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    NEXT(preadv64);
    FAIL_BY_RULE("read");
    return next(fd, parts, count, offset);
}

/* What must not wait says that it would have to. */
ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags)
{
    NEXT(preadv64v2);
    if ((flags & RWF_NOWAIT) && isBad(fd)) {
        errno = EAGAIN;
        return -1;
    }
    FAIL_BY_RULE("read");
    return next(fd, parts, count, offset, flags);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    NEXT(pwrite64);
    FAIL_BY_RULE("write");
    return next(fd, data, length, offset);
}

int fdatasync(int fd)
{
    NEXT(fdatasync);
    FAIL_BY_RULE("sync");
    return next(fd);
}

int fsync(int fd)
{
    NEXT(fsync);
    FAIL_BY_RULE("sync");
    return next(fd);
}
