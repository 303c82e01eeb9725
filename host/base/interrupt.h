/* SIGINT and SIGTERM as a flag that long jobs look at. Jobs check it at least every half second of work, finish what
 * must not be cut, keep what is done, and return SER_INTERRUPTED; a second signal that comes a while after the first
 * ends the process at once. */
#ifndef SER_BASE_INTERRUPT_H
#define SER_BASE_INTERRUPT_H

#include "base/status.h"

/* Installs the handlers; called once by the program's main, never by the library. */
void ser_interrupt_install(void);

/* The signal that came (SIGINT, SIGTERM), or 0. Safe from any thread. */
int ser_interrupted(void);

/* SER_INTERRUPTED with a text that names the signal, or SER_OK. What has been kept each command says (ser_command). */
ser_status ser_interrupt_check(ser_error *err);

#endif
