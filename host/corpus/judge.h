/* What one file's samples are: the part of the audit that looks at a recording alone. Private to host/corpus. */
#ifndef SER_CORPUS_JUDGE_H
#define SER_CORPUS_JUDGE_H

#include "corpus/manifest.h"

typedef struct {
  ser_reason reason;   /* NONE, silent, clipped, or why the file cannot be used */
  char detail[256];    /* in words; "" for NONE */
  ser_audio_info info; /* as decoded; rate 0 where the header could not be read */
  ser_hash samples;    /* of the rate and the mono samples: the same for the same sound in any lossless container */
} verdict;

/* Decodes the file once, in blocks. SER_FAILED and SER_INTERRUPTED only where nothing could be judged. */
ser_status judge_file(verdict *out, const char *path, ser_error *err);

bool reason_refuses(ser_reason reason);  /* the file cannot be used */
bool reason_excludes(ser_reason reason); /* it must not count, unless the audit only reports */

/* Has an audit heard the row's file? (An index judges what no header can be read of.) */
bool row_judged(const ser_row *row);
/* Sets reason and status; what is filtered stays so. */
void row_judge(ser_row *row, ser_reason reason, ser_audit_mode mode);
/* The row is as if no audit had heard it: new, or filtered still. */
void row_forget(ser_row *row);

#endif
