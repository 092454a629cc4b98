/* Runs a program and numbers every effect it has: what it does to files below one directory, and
 * what it asks an API server or a Git server to change. At effect K it can kill the program, tear
 * a write in two, or let the disk be full, broken or read-only from there on.
 *
 *   effects --root DIR --log FILE [--on EFFECT] [--at K --do kill|tear|ENOSPC|EIO|EROFS [--while FILE]]
 *           -- PROGRAM ARG…
 *
 * It is a supervisor behind seccomp's user notification: the kernel asks it before each such
 * system call, so calls that go around libc (rustix, hence tempfile) are seen as well, the program
 * needs no seam, and one thread decides in one order. Other processes, such as the program's
 * children, are let through unseen.
 *
 * The log has a line for each effect: `WHAT NAME …` with names relative to DIR, or `PATCH PATH` for
 * a request (plain HTTP only; reads and dry-runs are no effects): to an API server, or the one to
 * a Git server that pushes. Its first line is `pid N`. A line `cut` ends it when the program was
 * killed here; `failed WHAT NAME` is a call that was refused.
 *
 * EFFECT is a shell pattern of a line of the log without sizes: K then counts only what it fits.
 *
 * A full disk is one without room: what would make a file grow or appear fails, what is deleted
 * or cut off makes room again. With --while, faults last as long as that file is there.
 *
 * SIGTERM is handed on. The exit code is the program's, 137 if it was killed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum fault { NONE, KILL, TEAR, FAIL };
enum what { WRITE, SYNC, CUT, CREATE, MOVE, REMOVE, REQUEST };

static const char *root, *lasting, *on;
static size_t root_len;
static FILE *journal;
static pid_t child;
static enum fault fault;
static int error;
static long at, count, fits;
static int due;
static long long room;

/* One system call of the program, as far as it is an effect. */
struct effect {
	enum what what;
	const char *name; /* of the call */
	char path[PATH_MAX];
	int fd;
	long long offset, length, growth, frees;
	uint64_t data; /* address of what is written, 0 if it is in pieces */
};

static void die(const char *why)
{
	fprintf(stderr, "effects: %s: %s\n", why, strerror(errno));
	if (child > 0)
		kill(child, SIGKILL);
	exit(111);
}

static int below(const char *path)
{
	return strncmp(path, root, root_len) == 0 && path[root_len] == '/';
}

static size_t peek(uint64_t address, void *to, size_t length)
{
	struct iovec here = {to, length}, there = {(void *)(uintptr_t)address, length};
	ssize_t got = process_vm_readv(child, &here, 1, &there, 1, 0);
	return got < 0 ? 0 : (size_t)got;
}

/* A string may end short of an unmapped page: read it page by page. */
static void peek_string(uint64_t address, char *to, size_t most)
{
	size_t done = 0;
	while (done < most - 1) {
		size_t step = 4096 - (address + done) % 4096;
		if (step > most - 1 - done)
			step = most - 1 - done;
		size_t got = peek(address + done, to + done, step);
		if (got == 0 || memchr(to + done, 0, got))
			break;
		done += got;
	}
	to[most - 1] = 0;
}

static int link_of(const char *which, int fd, char *to)
{
	char name[64];
	snprintf(name, sizeof name, fd < 0 ? "/proc/%d/%s" : "/proc/%d/%s/%d", child, which, fd);
	ssize_t got = readlink(name, to, PATH_MAX - 1);
	to[got < 0 ? 0 : got] = 0;
	return got > 0;
}

/* The absolute path that a call names. */
static void path_at(int dir, uint64_t address, char *to)
{
	char given[PATH_MAX] = "", base[PATH_MAX] = "";
	peek_string(address, given, sizeof given);
	if (given[0] != '/')
		link_of(dir == AT_FDCWD ? "cwd" : "fd", dir == AT_FDCWD ? -1 : dir, base);
	size_t length = strlen(base);
	memcpy(to, base, length);
	if (length)
		to[length++] = '/';
	snprintf(to + length, PATH_MAX - length, "%s", given);
}

static int there(const char *path, struct stat *found)
{
	return lstat(path, found) == 0;
}

static long long position(int fd)
{
	char name[64], line[128];
	long long pos = 0;
	snprintf(name, sizeof name, "/proc/%d/fdinfo/%d", child, fd);
	FILE *info = fopen(name, "re");
	while (info && fgets(line, sizeof line, info))
		if (sscanf(line, "pos: %lld", &pos) == 1)
			break;
	if (info)
		fclose(info);
	return pos;
}

/* Whether a request changes something. Of a Git server's, a push does; which refs there are is asked
 * by GET, and what is fetched by POST to another name. Registries are only read, also where a POST
 * gets a token for it. */
static int changes(const char *path)
{
	static const char push[] = "/git-receive-pack";
	size_t length = strlen(path), tail = sizeof push - 1;
	if (strncmp(path, "/api", 4) == 0)
		return !strstr(path, "dryRun=");
	return length > tail && strcmp(path + length - tail, push) == 0;
}

/* A request that changes something, `PATCH /api/… HTTP/1.1`, sent as plain text. hyper begins a
 * write with the head and has the body behind it, in the same buffer or in the next piece of the
 * same call: what a later write goes on with, if one does, begins with no verb. */
static int request(struct effect *e, uint64_t data, uint64_t length)
{
	static const char *verbs[] = {"POST", "PUT", "PATCH", "DELETE"};
	char head[512] = "";
	peek(data, head, length < sizeof head - 1 ? length : sizeof head - 1);
	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
		size_t n = strlen(verbs[i]);
		if (strncmp(head, verbs[i], n) || head[n] != ' ')
			continue;
		char *path = head + n + 1, *end = strpbrk(path, " \r\n");
		if (!end)
			return 0;
		*end = 0;
		if (!changes(path))
			return 0;
		e->what = REQUEST;
		e->name = verbs[i];
		snprintf(e->path, sizeof e->path, "%s", path);
		return 1;
	}
	return 0;
}

static int writing(struct effect *e, const char *name, int fd, uint64_t data, long long length,
		   long long offset)
{
	struct stat found;
	e->name = name;
	e->what = WRITE;
	e->fd = fd;
	e->data = data;
	e->length = length;
	if (!link_of("fd", fd, e->path))
		return 0;
	if (strncmp(e->path, "socket:", 7) == 0)
		return data && request(e, data, (uint64_t)length);
	if (!below(e->path))
		return 0;
	e->offset = offset < 0 ? position(fd) : offset;
	long long size = stat(e->path, &found) == 0 ? found.st_size : e->offset;
	if (e->offset + length > size)
		e->growth = e->offset + length - size;
	return 1;
}

static int pieces(struct effect *e, const char *name, int fd, uint64_t vector, uint64_t number,
		  long long offset)
{
	struct iovec parts[64];
	uint64_t known = number < 64 ? number : 64;
	long long length = 0;
	if (peek(vector, parts, known * sizeof *parts) != known * sizeof *parts || !known)
		return 0;
	for (uint64_t i = 0; i < known; i++)
		length += (long long)parts[i].iov_len;
	uint64_t first = (uint64_t)(uintptr_t)parts[0].iov_base;
	int is = writing(e, name, fd, first, (long long)parts[0].iov_len, offset);
	if (is && e->what == WRITE) {
		e->growth += length - (long long)parts[0].iov_len;
		e->length = length;
		e->data = known == 1 ? first : 0;
	}
	return is;
}

static int named(struct effect *e, enum what what, const char *name, int dir, uint64_t address)
{
	struct stat found;
	e->what = what;
	e->name = name;
	path_at(dir, address, e->path);
	if (!below(e->path))
		return 0;
	int is = there(e->path, &found);
	if (what == REMOVE && is && S_ISREG(found.st_mode) && found.st_nlink == 1)
		e->frees = found.st_size;
	return what == CREATE ? !is : is;
}

static int opened(struct effect *e, int dir, uint64_t address, uint64_t flags)
{
	if (!(flags & O_CREAT)) {
		/* To open for writing is no effect, but a read-only disk refuses it. */
		int is = error == EROFS && named(e, MOVE, "open", dir, address);
		if (is)
			e->what = SYNC;
		return is ? -1 : 0;
	}
	int is = named(e, CREATE, "create", dir, address);
	struct stat found;
	if (!is && (flags & O_TRUNC) && below(e->path) && there(e->path, &found) && found.st_size) {
		e->what = CUT;
		e->name = "truncate";
		e->frees = found.st_size;
		return 1;
	}
	return is ? 1 : error == EROFS && below(e->path) ? -1 : 0;
}

/* 1: an effect; -1: none, but a fault may concern it; 0: nothing to us. */
static int judge(struct effect *e, const struct seccomp_data *call)
{
	const __u64 *a = call->args;
	struct stat found;
	switch (call->nr) {
	case SYS_write:
		return writing(e, "write", (int)a[0], a[1], (long long)a[2], -1);
	case SYS_pwrite64:
		return writing(e, "pwrite", (int)a[0], a[1], (long long)a[2], (long long)a[3]);
	case SYS_sendto:
		return writing(e, "send", (int)a[0], a[1], (long long)a[2], 0);
	case SYS_writev:
		return pieces(e, "writev", (int)a[0], a[1], a[2], -1);
	case SYS_pwritev:
	case SYS_pwritev2:
		return pieces(e, "pwritev", (int)a[0], a[1], a[2], (long long)a[3]);
	case SYS_sendmsg: {
		struct msghdr head;
		if (peek(a[1], &head, sizeof head) != sizeof head)
			return 0;
		return pieces(e, "send", (int)a[0], (uint64_t)(uintptr_t)head.msg_iov, head.msg_iovlen, 0);
	}
	case SYS_copy_file_range:
		return writing(e, "copy", (int)a[2], 0, (long long)a[4], -1);
	case SYS_sendfile:
		return writing(e, "copy", (int)a[0], 0, (long long)a[3], -1);
	case SYS_fallocate:
		return writing(e, "allocate", (int)a[0], 0, (long long)a[3], (long long)a[2]);
	case SYS_fsync:
	case SYS_fdatasync:
		e->what = SYNC;
		e->name = "sync";
		return link_of("fd", (int)a[0], e->path) && below(e->path);
	case SYS_ftruncate:
		e->what = CUT;
		e->name = "truncate";
		if (!link_of("fd", (int)a[0], e->path) || !below(e->path))
			return 0;
		if (stat(e->path, &found) == 0 && found.st_size > (long long)a[1])
			e->frees = found.st_size - (long long)a[1];
		return 1;
	case SYS_openat:
		return opened(e, (int)a[0], a[1], a[2]);
	case SYS_mkdirat:
		return named(e, CREATE, "mkdir", (int)a[0], a[1]);
	case SYS_unlinkat:
		return named(e, REMOVE, "unlink", (int)a[0], a[1]);
	case SYS_renameat2:
		return named(e, MOVE, "rename", (int)a[0], a[1]);
	case SYS_linkat:
		return named(e, MOVE, "link", (int)a[0], a[1]);
#ifdef SYS_renameat
	case SYS_renameat:
		return named(e, MOVE, "rename", (int)a[0], a[1]);
#endif
#ifdef SYS_open /* the older calls, which arm64 does not have */
	case SYS_open:
		return opened(e, AT_FDCWD, a[0], a[1]);
	case SYS_creat:
		return opened(e, AT_FDCWD, a[0], O_CREAT);
	case SYS_mkdir:
		return named(e, CREATE, "mkdir", AT_FDCWD, a[0]);
	case SYS_unlink:
		return named(e, REMOVE, "unlink", AT_FDCWD, a[0]);
	case SYS_rmdir:
		return named(e, REMOVE, "rmdir", AT_FDCWD, a[0]);
	case SYS_rename:
		return named(e, MOVE, "rename", AT_FDCWD, a[0]);
	case SYS_link:
		return named(e, MOVE, "link", AT_FDCWD, a[0]);
#endif
	}
	return 0;
}

static int refused(const struct effect *e)
{
	if (e->what == REQUEST || (lasting && access(lasting, F_OK)))
		return 0;
	if (error != ENOSPC)
		return !(error == EROFS && e->what == SYNC && strcmp(e->name, "open"));
	if (e->frees)
		room += e->frees;
	long long needs = e->what == CREATE ? 4096 : e->what == WRITE ? e->growth : 0;
	if (needs > room)
		return 1;
	room -= needs;
	return 0;
}

/* The first half of a write, as a power cut may leave it. */
static void tear(const struct effect *e)
{
	char name[64], bytes[65536];
	size_t half = (size_t)e->length / 2;
	if (e->what != WRITE || !e->data || half == 0 || half > sizeof bytes)
		return;
	snprintf(name, sizeof name, "/proc/%d/fd/%d", child, e->fd);
	int fd = open(name, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || peek(e->data, bytes, half) != half ||
	    pwrite(fd, bytes, half, e->offset) != (ssize_t)half)
		die("tear");
	close(fd);
}

static const char *shown(const struct effect *e)
{
	return e->what == REQUEST ? e->path : e->path + root_len + 1;
}

/* Whether an effect is the one that was asked for. */
static int reads(const struct effect *e)
{
	char line[PATH_MAX + 32];
	snprintf(line, sizeof line, "%s %s", e->name, shown(e));
	return fnmatch(on, line, 0) == 0;
}

/* What the call answers: 0 to go on, an errno, or -1 for never. */
static int decide(const struct seccomp_notif *asked)
{
	char task[64];
	struct effect e = {0};
	snprintf(task, sizeof task, "/proc/%d/task/%d", child, (int)asked->pid);
	if (access(task, F_OK))
		return 0;
	int is = judge(&e, &asked->data);
	if (is == 0)
		return 0;
	if (is > 0) {
		count++;
		if (e.what == WRITE)
			fprintf(journal, "%s %s %lld @%lld\n", e.name, shown(&e), e.length, e.offset);
		else
			fprintf(journal, "%s %s\n", e.name, shown(&e));
		fflush(journal);
		if (on && reads(&e) && ++fits == at)
			due = 1;
	}
	if (!on && count >= at)
		due = 1;
	if ((fault == KILL || fault == TEAR) && is > 0 && due) {
		if (fault == TEAR)
			tear(&e);
		kill(child, SIGKILL);
		fputs("cut\n", journal);
		fflush(journal);
		/* No answer to this call nor to any other thread's: nothing happens after the cut. */
		return -1;
	}
	if (fault == FAIL && due && refused(&e)) {
		fprintf(journal, "failed %s %s\n", e.name, shown(&e));
		fflush(journal);
		return error;
	}
	return 0;
}

#define ASK BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ON(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), ASK
/* Opening for reading is nobody's business, and by far the most frequent. */
#define ON_OPEN(call, flags)                                                                       \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 4), LOAD(args[flags]),                        \
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_CREAT | O_ACCMODE, 0, 1), ASK, ALLOW

static int listen_here(void)
{
	struct sock_filter code[] = {
		LOAD(nr),
		ON(SYS_write), ON(SYS_pwrite64), ON(SYS_sendto), ON(SYS_writev), ON(SYS_pwritev),
		ON(SYS_pwritev2), ON(SYS_sendmsg), ON(SYS_copy_file_range), ON(SYS_sendfile),
		ON(SYS_fallocate), ON(SYS_fsync), ON(SYS_fdatasync), ON(SYS_ftruncate), ON(SYS_mkdirat),
		ON(SYS_unlinkat), ON(SYS_renameat2), ON(SYS_linkat),
#ifdef SYS_renameat
		ON(SYS_renameat),
#endif
#ifdef SYS_open
		ON(SYS_creat), ON(SYS_mkdir), ON(SYS_unlink), ON(SYS_rmdir), ON(SYS_rename), ON(SYS_link),
		ON_OPEN(SYS_open, 1),
#endif
		ON_OPEN(SYS_openat, 2),
		ALLOW,
	};
	struct sock_fprog program = {sizeof code / sizeof *code, code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static void hand_on(int signal)
{
	kill(child, signal);
}

/* Starts the program. Both share one table of descriptors until exec, so that the one end of the
 * notifications that the child makes is ours as well. */
static int start(char **program)
{
	volatile int *shared =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");
	child = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (child < 0)
		die("clone");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int listener = listen_here();
		*shared = listener < 0 ? -errno : listener;
		if (listener >= 0)
			execvp(program[0], program);
		_exit(112);
	}
	while (*shared == 0)
		usleep(100);
	if (*shared < 0) {
		errno = -*shared;
		die("seccomp");
	}
	return *shared;
}

static void options(int argc, char **argv, char ***program)
{
	static const struct { const char *name; int number; } errors[] = {
		{"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EROFS", EROFS}};
	const char *log = NULL;
	int i = 1;
	for (; i + 1 < argc && strcmp(argv[i], "--"); i += 2) {
		const char *value = argv[i + 1];
		if (!strcmp(argv[i], "--root"))
			root = value;
		else if (!strcmp(argv[i], "--log"))
			log = value;
		else if (!strcmp(argv[i], "--at"))
			at = atol(value);
		else if (!strcmp(argv[i], "--on"))
			on = value;
		else if (!strcmp(argv[i], "--while"))
			lasting = value;
		else if (!strcmp(argv[i], "--do")) {
			fault = !strcmp(value, "kill") ? KILL : !strcmp(value, "tear") ? TEAR : FAIL;
			for (size_t n = 0; n < sizeof errors / sizeof *errors; n++)
				if (!strcmp(value, errors[n].name))
					error = errors[n].number;
		}
	}
	*program = argv + i + 1;
	if (!root || !log || i + 1 >= argc || (fault == FAIL && !error)) {
		fputs("effects: --root DIR --log FILE [--at K --do FAULT [--while FILE]] -- PROGRAM\n", stderr);
		exit(111);
	}
	root_len = strlen(root);
	journal = fopen(log, "we");
	if (!journal)
		die(log);
}

int main(int argc, char **argv)
{
	char **program;
	options(argc, argv, &program);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGTERM, hand_on);
	int listener = start(program), status = 0;
	fprintf(journal, "pid %d\n", child);
	fflush(journal);
	for (;;) {
		struct pollfd waits = {listener, POLLIN, 0};
		poll(&waits, 1, 50);
		if (waitpid(child, &status, WNOHANG) == child)
			break;
		if (!(waits.revents & POLLIN))
			continue;
		struct seccomp_notif asked;
		memset(&asked, 0, sizeof asked);
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked))
			continue; /* the caller is gone, or we were interrupted */
		struct seccomp_notif_resp answer = {.id = asked.id};
		int decision = decide(&asked);
		if (decision < 0) {
			waitpid(child, &status, 0);
			break;
		}
		answer.error = -decision;
		if (decision == 0)
			answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
