/* Tables and lines about manifests, shared by index, audit and run. */
#ifndef SER_CLI_COUNTS_H
#define SER_CLI_COUNTS_H

#include "corpus/manifest.h"

/* Usable recordings by corpus and emotion, and beside them how many are filtered, excluded and refused. */
void cli_counts_text(ser_text *text, const ser_manifest *manifest);

/* What the audit found: counts by reason, with the first few paths of each (refused ones are named elsewhere). */
void cli_audit_text(ser_text *text, const ser_manifest *manifest, const ser_audit_summary *summary);

/* Names each refused recording on stderr, with what is wrong and the cure; how many they are. */
size_t cli_name_refused(const ser_manifest *manifest);

/* Decode workers: the number asked for, or all cores. */
int cli_jobs(int64_t jobs);

#endif
