/* Preloaded, this makes a process see a CPU without AVX-512, VNNI and AMX: the widest instructions are AVX2 and FMA.

Libraries choose their kernels by the CPUID instruction. Linux lets a thread ask that CPUID faults (arch_prctl
ARCH_SET_CPUID, since 4.12, on CPUs with "cpuid_fault" in /proc/cpuinfo); the fault is answered here, with the bits of
those extensions cleared. The kernel hands the setting to new threads and to forks; a program that is executed preloads
this again. Bits: Intel SDM volume 2A, CPUID, leaf 7. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static struct sigaction others; /* what the program wants to be done at a real fault */
static int (*next_sigaction)(int, const struct sigaction *, struct sigaction *);

static void masked_cpuid(greg_t *registers)
{
    uint32_t leaf = (uint32_t)registers[REG_RAX], part = (uint32_t)registers[REG_RCX], a, b, c, d;
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1UL);
    __cpuid_count(leaf, part, a, b, c, d);
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0UL);
    if (leaf == 7 && part == 0) {
        b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
        c &= ~(1u << 1 | 1u << 6 | 1u << 8 | 1u << 9 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 14);
        d &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);
    }
    if (leaf == 7 && part == 1) {
        a &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23);
        d &= ~(1u << 4 | 1u << 5 | 1u << 10 | 1u << 19);
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    /* a general protection fault has no address; an address that cannot be read would fault again */
    if (info->si_code == SI_KERNEL && memcmp((void *)registers[REG_RIP], "\x0f\xa2", 2) == 0) {
        masked_cpuid(registers);
        return;
    }
    if (others.sa_flags & SA_SIGINFO)
        others.sa_sigaction(number, info, context);
    else if (others.sa_handler != SIG_DFL && others.sa_handler != SIG_IGN)
        others.sa_handler(number);
    else {
        struct sigaction usual = {.sa_handler = SIG_DFL};
        next_sigaction(SIGSEGV, &usual, NULL); /* the instruction faults again, and ends the process */
    }
}

int sigaction(int number, const struct sigaction *wanted, struct sigaction *before)
{
    if (!next_sigaction)
        next_sigaction = dlsym(RTLD_NEXT, "sigaction");
    if (number != SIGSEGV)
        return next_sigaction(number, wanted, before);
    struct sigaction last = others;
    if (wanted)
        others = *wanted;
    if (before)
        *before = last;
    return 0;
}

/* cc1 and others ask in this older way */
sighandler_t signal(int number, sighandler_t wanted)
{
    static sighandler_t (*next_signal)(int, sighandler_t);
    if (!next_signal)
        next_signal = dlsym(RTLD_NEXT, "signal");
    if (number != SIGSEGV)
        return next_signal(number, wanted);
    struct sigaction last = others, now = {.sa_handler = wanted};
    others = now;
    return last.sa_handler;
}

__attribute__((constructor)) static void start(void)
{
    struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    next_sigaction = dlsym(RTLD_NEXT, "sigaction");
    if (next_sigaction(SIGSEGV, &ours, NULL) || syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0UL)) {
        static const char words[] = "other_cpu: this machine cannot answer CPUID otherwise (no cpuid_fault)\n";
        if (write(2, words, sizeof words - 1) < 0) {}
        _exit(70);
    }
}
