/* The program itself, run by a shell in a folder of made files. */
#ifndef SER_TESTS_PROGRAM_H
#define SER_TESTS_PROGRAM_H

#include "support/harness.h"

/* Makes the folder that all below work in, and removes it with all it holds. */
void test_program_start(const char *name);
void test_program_end(void);
const char *test_program_folder(void);

/* Writes a text, or a little speech at 16 kHz, at this place in the folder; makes the folders on the way. */
void test_put_file(const char *name, const char *text);
void test_put_wav(const char *name, uint64_t seed, double seconds);

/* Runs a shell line in the folder, S being the program ($P its path). The exit status; stderr is freed by the caller.
 */
int test_run_line(const char *line, char **said);
char *test_printed(void); /* what the last line wrote to stdout; freed by the caller */

/* A line that must do its work, for what needs what it leaves. */
void test_must(const char *line);

#endif
