// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#include "guard.h"

/* Always there, or the handler might have to allocate it. */
#define THREAD_LOCAL _Thread_local __attribute__((tls_model("initial-exec")))

static THREAD_LOCAL sigjmp_buf *target;
static THREAD_LOCAL timer_t timer;
static THREAD_LOCAL int hurries;
static struct sigaction previous;

enum {
	HURRY = 10, /* ms a system call may wait */
};

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	sigjmp_buf *out = target;

	if (out && info->si_code <= 0) /* sent by somebody */
		return;
	if (out)
		siglongjmp(*out, 1);
	if (previous.sa_flags & SA_SIGINFO)
		previous.sa_sigaction(number, info, context);
	else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
		previous.sa_handler(number);
	else
		sigaction(number, &previous, NULL); /* the same access again ends the process */
}

/*
 * Asked for again before each use: somebody else, such as Python's
 * faulthandler, may have taken the signal meanwhile.
 */
int guard_install(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	/* The jump would leave the signal blocked; system calls are not to be restarted. */
	struct sigaction ours = { .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };
	struct sigaction present;
	int result = 0;

	ours.sa_sigaction = on_sigbus;
	sigemptyset(&ours.sa_mask);
	pthread_mutex_lock(&lock);
	if (sigaction(SIGBUS, NULL, &present) < 0) {
		result = -errno;
	} else if (!(present.sa_flags & SA_SIGINFO) || present.sa_sigaction != on_sigbus) {
		previous = present;
		if (sigaction(SIGBUS, &ours, NULL) < 0)
			result = -errno;
	}
	pthread_mutex_unlock(&lock);
	return result;
}

void guard_begin(sigjmp_buf *out)
{
	target = out;
}

void guard_end(void)
{
	/* What the timer has sent comes before its end, so while it does no harm. */
	if (hurries)
		timer_delete(timer);
	hurries = 0;
	target = NULL;
}

void guard_hurry(void)
{
	struct timespec often = { .tv_nsec = HURRY * 1000000 };
	struct itimerspec when = { .it_value = often, .it_interval = often };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGBUS };

	event._sigev_un._tid = gettid();
	if (hurries || timer_create(CLOCK_MONOTONIC, &event, &timer) < 0)
		return;
	hurries = 1;
	timer_settime(timer, 0, &when, NULL);
}
