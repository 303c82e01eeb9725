/* The table of parameters, for the files that read it (config*.c); everybody else uses config.h. */
#ifndef SER_BASE_CONFIG_TABLE_H
#define SER_BASE_CONFIG_TABLE_H

#include "base/config.h"

typedef enum { KIND_TEXT, KIND_INTEGER, KIND_REAL, KIND_BOOL, KIND_CHOICE, KIND_INTEGERS, KIND_TEXTS } parameter_kind;

/* One row. range is "[least, most]" with round brackets where an end is left out, for numbers; choices are words with
 * single spaces between: the values of an enumeration in its order (KIND_CHOICE), or all that a text or an integer may
 * be. Both are NULL where they say nothing. */
typedef struct {
  const char *key;
  size_t offset; /* within ser_config */
  parameter_kind kind;
  const char *range, *choices;
  const char *preset; /* the default, as --set would have it */
  const char *help;
} ser_parameter_row;

extern const ser_parameter_row ser_parameter_rows[];
extern const size_t ser_parameter_count;

/* The row of a key, or NULL; whether a name is the front of keys ("train", "features.mfcc39"). */
const ser_parameter_row *ser_parameter_find(const char *key);
bool ser_parameter_is_group(const char *name);

/* SER_USAGE: "WHERE: unknown key KEY; ...", naming the nearest key (or group of keys). */
ser_status ser_parameter_unknown(const char *where, const char *key, bool group, ser_error *err);

void ser_parameter_came_from(ser_config *config, const ser_parameter_row *row, const char *where);

/* Parses and stores the items ([count]; one for what is no list). Errors begin with where, which is
 * remembered. */
ser_status ser_parameter_assign(ser_config *config, const ser_parameter_row *row, const char *where,
                                const char *const *items, size_t count, ser_error *err);
/* The same from one text; lists as "1,2" or "[1, 2]". */
ser_status ser_parameter_assign_text(ser_config *config, const ser_parameter_row *row, const char *where,
                                     const char *text, ser_error *err);

#endif
