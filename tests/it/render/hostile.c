/* An engine that is called like kubectl and tries what it must not: `kustomize … DIR`.
 * The last part of DIR says what: hang, grow, flood, else try everything and print the outcome
 * as a ConfigMap. Static, so that it needs no file but itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

static void tell(const char *what, int allowed) {
    printf("  \"%s\": %s\n", what, allowed ? "allowed" : "refused");
}

static int readable(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY);
    return fd >= 0 && read(fd, &byte, 1) >= 0;
}

int main(int argc, char **argv) {
    const char *dir = argv[argc - 1];
    const char *name = strrchr(dir, '/') + 1;
    char path[4096], other[4096] = "";
    int count = 0;
    struct rlimit core;

    if (strcmp(name, "hang") == 0)
        for (;;) sched_yield();
    if (strcmp(name, "grow") == 0)
        for (;;) memset(malloc(1 << 20), 1, 1 << 20), usleep(1000);
    if (strcmp(name, "flood") == 0)
        while (puts("a flood of output that never ends, line after line after line") >= 0);

    puts("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: tried}\ndata:");
    snprintf(path, sizeof path, "%s/kustomization.yaml", dir);
    tell("own file", readable(path));
    snprintf(path, sizeof path, "%s/new", dir);
    tell("write", open(path, O_WRONLY | O_CREAT, 0600) >= 0);
    tell("/etc/passwd", readable("/etc/passwd"));
    tell("/proc/1/environ", readable("/proc/1/environ"));
    /* DIR is RUNTIME/render/w-XXXX/apps. */
    snprintf(other, sizeof other, "%s/../../w-other/secret", dir);
    tell("other workspace", readable(other));
    tell("socket", socket(AF_INET, SOCK_STREAM, 0) >= 0);
    tell("unix socket", socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
    tell("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
    tell("kill parent", kill(getppid(), 0) == 0);
    tell("namespace", unshare(CLONE_NEWUSER) == 0 || syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0) >= 0);
    tell("io_uring", syscall(425, 1, path) >= 0);
    fflush(stdout);
    execl("/bin/sh", "sh", "-c", "echo '  shell: ran'", NULL);
    tell("exec shell", 0);
    while (environ[count]) count++;
    printf("  environment: \"%d\"\n", count);
    getrlimit(RLIMIT_CORE, &core);
    printf("  core: \"%d\"\n", (int)core.rlim_max);
    return 0;
}
