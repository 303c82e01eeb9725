/* Edit distance by optimal string alignment. */
#include "base/nearest.h"

#include <ctype.h>
#include <string.h>

enum { MOST = 127 };

static size_t least(size_t a, size_t b) {
  return a < b ? a : b;
}

size_t ser_edit_distance(const char *a, const char *b) {
  size_t m = least(strlen(a), MOST), n = least(strlen(b), MOST);
  size_t rows[3][MOST + 1], *before = rows[0], *above = rows[1], *row = rows[2];
  for (size_t j = 0; j <= n; j++) above[j] = j;
  for (size_t i = 1; i <= m; i++) {
    row[0] = i;
    for (size_t j = 1; j <= n; j++) {
      int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
      row[j] = least(least(above[j], row[j - 1]) + 1, above[j - 1] + (x != y));
      if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) && tolower((unsigned char)a[i - 2]) == y)
        row[j] = least(row[j], before[j - 2] + 1);
    }
    size_t *oldest = before;
    before = above;
    above = row;
    row = oldest;
  }
  return above[n];
}

bool ser_is_near(const char *given, const char *candidate) {
  given += strspn(given, "-");
  candidate += strspn(candidate, "-");
  size_t longest = strlen(given) > strlen(candidate) ? strlen(given) : strlen(candidate);
  return 3 * ser_edit_distance(given, candidate) <= longest;
}
