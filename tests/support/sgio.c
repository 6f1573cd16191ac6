/*
 * Lets the tools of sg3-utils talk to an iSCSI target without a kernel's help.
 *
 * Loaded with LD_PRELOAD.  A file whose name ends in "lunN" stands for LUN N: what is asked of it with the ioctl
 * SG_IO goes to the UNIX socket that SGIO_SOCKET names, as
 *     LUN, length of the CDB, bytes wanted, bytes that follow (four numbers of 32 bits), the CDB, the bytes
 * and comes back as
 *     SCSI status, bytes of sense data, bytes of data (three numbers), the sense data, the data
 * in the order of this machine.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <scsi/sg.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

static int peer = -1;

static int connected(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("SGIO_SOCKET");

    if (peer >= 0)
        return 0;
    if (path == NULL || strlen(path) >= sizeof address.sun_path)
        return -1;
    strcpy(address.sun_path, path);
    peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(peer, (struct sockaddr *)&address, sizeof address);
}

static int all(int sending, void *data, size_t length)
{
    char *place = data;

    while (length > 0) {
        ssize_t done = sending ? send(peer, place, length, MSG_NOSIGNAL) : recv(peer, place, length, 0);
        if (done <= 0)
            return -1;
        place += done;
        length -= done;
    }
    return 0;
}

/* The LUN that a path stands for, or -1. */
static int named(const char *path)
{
    const char *name = strrchr(path, '/');

    return name != NULL && strncmp(name, "/lun", 4) == 0 ? atoi(name + 4) : -1;
}

/* The LUN that a descriptor stands for, or -1. */
static int lun(int fd)
{
    char link[64], path[4096];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return -1;
    path[length] = 0;
    return named(path);
}

/* What is known of a LUN's file: it is one of the kernel's sg devices. */
static int disguised(int number, struct stat64 *found, int result)
{
    if (result == 0 && number >= 0) {
        found->st_mode = (found->st_mode & ~S_IFMT) | S_IFCHR;
        found->st_rdev = makedev(21, number);
    }
    return result;
}

int fstat64(int fd, struct stat64 *found)
{
    int (*next)(int, struct stat64 *) = dlsym(RTLD_NEXT, "fstat64");

    return disguised(lun(fd), found, next(fd, found));
}

int stat64(const char *path, struct stat64 *found)
{
    int (*next)(const char *, struct stat64 *) = dlsym(RTLD_NEXT, "stat64");

    return disguised(named(path), found, next(path, found));
}

static int carry(int number, struct sg_io_hdr *io)
{
    int out = io->dxfer_direction == SG_DXFER_TO_DEV, in = io->dxfer_direction == SG_DXFER_FROM_DEV;
    uint32_t asked[4] = {number, io->cmd_len, in ? io->dxfer_len : 0, out ? io->dxfer_len : 0};
    uint32_t told[3];
    char sense[256];

    if (connected() || all(1, asked, sizeof asked) || all(1, io->cmdp, io->cmd_len) ||
        (out && all(1, io->dxferp, io->dxfer_len)) || all(0, told, sizeof told) ||
        told[1] > sizeof sense || all(0, sense, told[1]) || told[2] > asked[2] || all(0, io->dxferp, told[2])) {
        errno = EIO;
        return -1;
    }
    io->status = io->masked_status = io->host_status = io->driver_status = io->info = 0;
    io->status = told[0];
    io->masked_status = (told[0] >> 1) & 0x1f;
    io->sb_len_wr = told[1] < io->mx_sb_len ? told[1] : io->mx_sb_len;
    memcpy(io->sbp, sense, io->sb_len_wr);
    io->driver_status = io->sb_len_wr ? 8 : 0;
    io->resid = in ? io->dxfer_len - told[2] : 0;
    io->info = told[0] ? SG_INFO_CHECK : SG_INFO_OK;
    return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*next)(int, unsigned long, ...);
    void *argument;
    va_list list;
    int number;

    va_start(list, request);
    argument = va_arg(list, void *);
    va_end(list);
    number = lun(fd);
    if (number >= 0 && request == SG_IO)
        return carry(number, argument);
    if (number >= 0 && request == SG_GET_VERSION_NUM) {
        *(int *)argument = 30536;
        return 0;
    }
    if (number >= 0 && request == SG_GET_RESERVED_SIZE) {
        *(int *)argument = 1 << 20;
        return 0;
    }
    if (number >= 0 && (request == SG_SET_RESERVED_SIZE || request == SG_SET_TIMEOUT))
        return 0;
    if (next == NULL)
        next = dlsym(RTLD_NEXT, "ioctl");
    return next(fd, request, argument);
}
