/* The program: common options, the table of subcommands, exit codes. */
#include <stdio.h>

#include "base/version.h"

int main(void) {
  printf("serenade %s\n", SER_VERSION);
  return 0;
}
