/* The stack machine that reads pickles. It follows Python's pickle (protocols 2 to 5) in what it takes; memory and time
 * are bounded by the pickle's size and by MOST, there is no recursion, and values in circles do no harm. */
#include "model/weights_pickle.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/weights_names.h"

/* Values and memo places at most: some 30 a tensor are usual, so this is a model of 30 000 tensors. */
#define MOST ((size_t)1 << 20)
enum { BLOCK = 1024 };

/* ---- the machine ------------------------------------------------------------------------------------------------- */

typedef struct {
  ser_pickle *pickle;
  const unsigned char *bytes;
  size_t size, at;
  ser_pickled **stack, **memo;
  size_t depth, stack_room, memo_count, memo_room;
  size_t *marks; /* heights of the stack */
  size_t mark_count, mark_room;
  size_t pushed;
  const char *path;
  ser_error *err;
} machine;

static ser_status damaged(const machine *m, const char *what) {
  return ser_fail(m->err, SER_FAILED,
                  "%s is not a sound PyTorch file: its pickle %s (at byte %zu of it); copy it again", m->path, what,
                  m->at);
}

static ser_status forbidden(const machine *m, const char *what, const char *why) {
  return ser_fail(m->err, SER_FAILED,
                  "%s %s, %s; the file is refused and nothing of it was run: save the model's tensors alone, as its "
                  "state_dict or as model.safetensors",
                  m->path, what, why);
}

static ser_status refuse_name(const machine *m, ser_pickled_text module, ser_pickled_text name) {
  char *both = ser_format("%.*s.%.*s", module.size < 64 ? (int)module.size : 64, module.bytes,
                          name.size < 64 ? (int)name.size : 64, name.bytes);
  char *shown = ser_shown(both), *what = ser_format("names %s", shown);
  ser_status status = forbidden(m, what, "which is no tensor");
  free(both);
  free(shown);
  free(what);
  return status;
}

static ser_pickled *make(machine *m, ser_pickled_kind kind) {
  ser_pickle *p = m->pickle;
  if (p->used == p->count * BLOCK) {
    SER_GROW(p->blocks, p->count, p->capacity);
    p->blocks[p->count++] = ser_alloc_zero(BLOCK, sizeof **p->blocks);
  }
  ser_pickled *value = &p->blocks[p->used / BLOCK][p->used % BLOCK];
  p->used++;
  value->kind = kind;
  return value;
}

static ser_status push(machine *m, ser_pickled *value) {
  if (++m->pushed > MOST) return forbidden(m, "holds a pickle of more than a million values", "more than tensors need");
  SER_GROW(m->stack, m->depth, m->stack_room);
  m->stack[m->depth++] = value;
  return SER_OK;
}

static ser_status push_number(machine *m, ser_pickled_kind kind, int64_t number) {
  ser_pickled *value = make(m, kind);
  value->number = number;
  return push(m, value);
}

/* What may be taken off the stack: what lies above the last mark. */
static size_t available(const machine *m) {
  return m->depth - (m->mark_count ? m->marks[m->mark_count - 1] : 0);
}

static ser_status need(const machine *m, size_t count) {
  return available(m) >= count ? SER_OK : damaged(m, "takes more than it put there");
}

/* The next bytes. */
static ser_status take(machine *m, const unsigned char **bytes, size_t count) {
  if (count > m->size - m->at) return damaged(m, "ends in the middle");
  *bytes = m->bytes + m->at;
  m->at += count;
  return SER_OK;
}

static ser_status take_number(machine *m, uint64_t *number, size_t width) {
  const unsigned char *bytes = NULL;
  *number = 0;
  SER_TRY(take(m, &bytes, width));
  for (size_t i = 0; i < width; i++) *number |= (uint64_t)bytes[i] << (8 * i);
  return SER_OK;
}

/* A length of so many bytes, and as many bytes. */
static ser_status take_text(machine *m, ser_pickled_text *text, size_t width) {
  uint64_t size;
  const unsigned char *bytes;
  SER_TRY(take_number(m, &size, width));
  if (size > m->size - m->at) return damaged(m, "holds a text that is longer than the file");
  SER_TRY(take(m, &bytes, (size_t)size));
  *text = (ser_pickled_text){(const char *)bytes, (size_t)size};
  return SER_OK;
}

static ser_status take_line(machine *m, ser_pickled_text *line) {
  const unsigned char *bytes = m->bytes + m->at, *end = memchr(bytes, '\n', m->size - m->at);
  if (!end) return damaged(m, "ends in the middle");
  *line = (ser_pickled_text){(const char *)bytes, (size_t)(end - bytes)};
  m->at += line->size + 1;
  return SER_OK;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static ser_status push_text(machine *m, ser_pickled_kind kind, size_t width) {
  ser_pickled_text text;
  SER_TRY(take_text(m, &text, width));
  ser_pickled *value = make(m, kind);
  value->text = text;
  return push(m, value);
}

/* A whole number of any length, the lowest byte first, negative where the highest bit is set. */
static ser_status push_long(machine *m, size_t width) {
  ser_pickled_text text;
  SER_TRY(take_text(m, &text, width));
  if (text.size > 8) return push(m, make(m, SER_PICKLED_OTHER));
  uint64_t number = text.size && (text.bytes[text.size - 1] & 0x80) ? ~(uint64_t)0 : 0;
  for (size_t i = text.size; i-- > 0;) number = number << 8 | (unsigned char)text.bytes[i];
  return push_number(m, SER_PICKLED_INT, (int64_t)number);
}

/* One of four bytes is signed; shorter ones are not. */
static ser_status push_integer(machine *m, size_t width) {
  uint64_t number;
  SER_TRY(take_number(m, &number, width));
  return push_number(m, SER_PICKLED_INT, width == 4 ? (int32_t)number : (int64_t)number);
}

static ser_status push_skipped(machine *m, size_t bytes) {
  const unsigned char *skipped;
  SER_TRY(take(m, &skipped, bytes));
  return push(m, make(m, SER_PICKLED_OTHER));
}

static ser_status push_name(machine *m, ser_pickled_text module, ser_pickled_text name) {
  int64_t row = ser_pickled_row(module, name);
  if (row < 0) return refuse_name(m, module, name);
  return push_number(m, SER_PICKLED_NAME, row);
}

static ser_status global(machine *m) {
  ser_pickled_text module, name;
  SER_TRY(take_line(m, &module));
  SER_TRY(take_line(m, &name));
  return push_name(m, module, name);
}

static ser_status stack_global(machine *m) {
  SER_TRY(need(m, 2));
  const ser_pickled *module = m->stack[m->depth - 2], *name = m->stack[m->depth - 1];
  if (module->kind != SER_PICKLED_TEXT || name->kind != SER_PICKLED_TEXT)
    return damaged(m, "names something by what is no text");
  m->depth -= 2;
  return push_name(m, module->text, name->text);
}

static ser_status memo_put(machine *m, uint64_t place) {
  SER_TRY(need(m, 1));
  if (place >= MOST) return damaged(m, "remembers at an impossible place");
  if (place >= m->memo_room) {
    size_t room = (size_t)place + 1 > 2 * m->memo_room ? (size_t)place + 1 : 2 * m->memo_room;
    m->memo = ser_realloc(m->memo, room * sizeof *m->memo);
    memset(m->memo + m->memo_room, 0, (room - m->memo_room) * sizeof *m->memo);
    m->memo_room = room;
  }
  if (!m->memo[place]) m->memo_count++;
  m->memo[place] = m->stack[m->depth - 1];
  return SER_OK;
}

static ser_status memo_put_at(machine *m, size_t width) {
  uint64_t place;
  SER_TRY(take_number(m, &place, width));
  return memo_put(m, place);
}

static ser_status memo_get(machine *m, size_t width) {
  uint64_t place;
  SER_TRY(take_number(m, &place, width));
  if (place >= m->memo_room || !m->memo[place]) return damaged(m, "recalls what it never remembered");
  return push(m, m->memo[place]);
}

static ser_status mark(machine *m) {
  if (m->mark_count >= MOST) return forbidden(m, "nests more than a million deep", "deeper than tensors need");
  SER_GROW(m->marks, m->mark_count, m->mark_room);
  m->marks[m->mark_count++] = m->depth;
  return SER_OK;
}

/* How many values lie above the last mark, which goes. */
static ser_status unmark(machine *m, size_t *count) {
  if (!m->mark_count) return damaged(m, "closes what it never opened");
  *count = available(m);
  m->mark_count--;
  return SER_OK;
}

/* The uppermost values become a tuple, a list or a dictionary. */
static ser_status collect(machine *m, ser_pickled_kind kind, size_t count) {
  SER_TRY(need(m, count));
  ser_pickled *value = make(m, kind);
  if (count) {
    value->list.items = ser_alloc(count * sizeof *value->list.items);
    memcpy(value->list.items, m->stack + m->depth - count, count * sizeof *value->list.items);
    value->list.count = value->list.capacity = count;
  }
  m->depth -= count;
  return push(m, value);
}

static ser_status collect_marked(machine *m, ser_pickled_kind kind) {
  size_t count = 0;
  SER_TRY(unmark(m, &count));
  return collect(m, kind, count);
}

/* The uppermost values go into the list, dictionary or set below them. */
static ser_status put_into(machine *m, ser_pickled_kind kind, size_t count) {
  SER_TRY(need(m, count + 1));
  ser_pickled *into = m->stack[m->depth - count - 1];
  if (into->kind != kind) return damaged(m, "adds to what is no container of that kind");
  if (kind == SER_PICKLED_DICT && count % 2) return damaged(m, "holds a key without a value");
  for (size_t i = 0; i < count && kind != SER_PICKLED_OTHER; i++) {
    SER_GROW(into->list.items, into->list.count, into->list.capacity);
    into->list.items[into->list.count++] = m->stack[m->depth - count + i];
  }
  m->depth -= count;
  return SER_OK;
}

static ser_status put_marked_into(machine *m, ser_pickled_kind kind) {
  size_t count = 0;
  SER_TRY(unmark(m, &count));
  return put_into(m, kind, count);
}

/* ---- what the allowed names make --------------------------------------------------------------------------------- */

/* ('storage', type, key, place, elements), and None where an older torch told of a view. */
static ser_status persistent(machine *m) {
  SER_TRY(need(m, 1));
  const ser_pickled *id = m->stack[m->depth - 1];
  ser_pickled **part = id->list.items;
  if (id->kind != SER_PICKLED_TUPLE || !id->list.count || !ser_pickled_is(part[0], "storage"))
    return forbidden(m, "refers to something outside that is no storage of a tensor", "which is nothing to read");
  size_t parts = id->list.count;
  const ser_storage_type *type = parts >= 5 ? ser_pickled_storage_of(part[1]) : NULL;
  if (!type || part[2]->kind != SER_PICKLED_TEXT || part[4]->kind != SER_PICKLED_INT || part[4]->number < 0)
    return damaged(m, "describes a storage badly");
  if (parts > 6 || (parts == 6 && part[5]->kind != SER_PICKLED_NONE))
    return forbidden(m, "holds a view of a storage as only the oldest PyTorch wrote it", "which is not read");
  ser_pickled *value = make(m, SER_PICKLED_STORAGE);
  value->storage.type = type;
  value->storage.key = part[2]->text;
  value->storage.elements = part[4]->number;
  m->depth--;
  return push(m, value);
}

/* A tuple of whole numbers that are not negative. */
static bool read_sizes(int64_t sizes[8], int *count, const ser_pickled *value) {
  if (value->kind != SER_PICKLED_TUPLE || value->list.count > 8) return false;
  *count = (int)value->list.count;
  for (int i = 0; i < *count; i++) {
    const ser_pickled *item = value->list.items[i];
    if (item->kind != SER_PICKLED_INT || item->number < 0) return false;
    sizes[i] = item->number;
  }
  return true;
}

/* _rebuild_tensor(storage, offset, shape, stride), _v2 with (.., gradient, hooks[, attributes]): attributes may say
 * that the numbers are to be negated, so there must be none. */
static ser_status rebuild_tensor(machine *m, const ser_pickled *arguments, bool second) {
  ser_pickled **part = arguments->list.items;
  size_t parts = arguments->list.count;
  ser_pickled_tensor t = {0};
  int strides;
  if (parts < (second ? 6 : 4) || parts > (second ? 7 : 4) || part[0]->kind != SER_PICKLED_STORAGE ||
      part[1]->kind != SER_PICKLED_INT || part[1]->number < 0 || !read_sizes(t.shape, &t.dimensions, part[2]) ||
      !read_sizes(t.stride, &strides, part[3]) || strides != t.dimensions)
    return damaged(m, "describes a tensor badly, or one of more than 8 dimensions");
  if (parts == 7 && part[6]->kind != SER_PICKLED_NONE && !(part[6]->kind == SER_PICKLED_DICT && !part[6]->list.count))
    return forbidden(m, "gives a tensor attributes", "which may change its numbers");
  t.storage = part[0];
  t.offset = part[1]->number;
  ser_pickled *value = make(m, SER_PICKLED_TENSOR);
  value->tensor = ser_alloc(sizeof t);
  *value->tensor = t;
  return push(m, value);
}

/* Name and arguments: what the name makes of them. */
static ser_status reduce(machine *m, bool is_new) {
  SER_TRY(need(m, 2));
  const ser_pickled *name = m->stack[m->depth - 2], *arguments = m->stack[m->depth - 1];
  ser_pickled_call made = ser_pickled_call_of(name);
  if (made == SER_CALL_NONE) return forbidden(m, "calls something", "which no table of tensors does in this place");
  if (arguments->kind != SER_PICKLED_TUPLE) return damaged(m, "calls with what are no arguments");
  size_t parts = arguments->list.count;
  m->depth -= 2;
  switch (made) {
  case SER_CALL_DICT:
    if (parts) return damaged(m, "makes a dictionary of something");
    return push(m, make(m, SER_PICKLED_DICT));
  case SER_CALL_SIZE:
    if (parts != 1 || arguments->list.items[0]->kind != SER_PICKLED_TUPLE)
      return damaged(m, "makes a shape of what is none");
    return push(m, arguments->list.items[0]);
  case SER_CALL_PARAMETER:
    if (is_new || parts < 1 || arguments->list.items[0]->kind != SER_PICKLED_TENSOR)
      return damaged(m, "makes a parameter of what is no tensor");
    return push(m, arguments->list.items[0]);
  default:
    if (is_new) return damaged(m, "makes a tensor in a way that does not exist");
    return rebuild_tensor(m, arguments, made == SER_CALL_TENSOR_V2);
  }
}

/* State that is set: torch hangs _metadata onto the OrderedDict of a state_dict. It is left out. */
static ser_status build(machine *m) {
  SER_TRY(need(m, 2));
  if (m->stack[m->depth - 2]->kind != SER_PICKLED_DICT)
    return forbidden(m, "sets the state of an object", "which no table of tensors needs");
  m->depth--;
  return SER_OK;
}

static ser_status protocol(machine *m) {
  uint64_t version;
  SER_TRY(take_number(m, &version, 1));
  return version >= 2 && version <= 5 ? SER_OK : damaged(m, "is of a protocol other than 2 to 5");
}

static ser_status frame(machine *m) {
  uint64_t size;
  SER_TRY(take_number(m, &size, 8));
  return size <= m->size - m->at ? SER_OK : damaged(m, "ends in the middle");
}

static ser_status pop(machine *m) {
  if (!available(m) && m->mark_count) { /* as Python does */
    m->mark_count--;
    return SER_OK;
  }
  SER_TRY(need(m, 1));
  m->depth--;
  return SER_OK;
}

static ser_status duplicate(machine *m) {
  SER_TRY(need(m, 1));
  return push(m, m->stack[m->depth - 1]);
}

static ser_status pop_marked(machine *m) {
  size_t count = 0;
  SER_TRY(unmark(m, &count));
  m->depth -= count;
  return SER_OK;
}

static ser_status instance(machine *m) {
  ser_pickled_text module, name;
  SER_TRY(take_line(m, &module));
  SER_TRY(take_line(m, &name));
  return refuse_name(m, module, name); /* also one that is allowed elsewhere: nothing of ours is made in this way */
}

static ser_status memoize(machine *m) {
  return memo_put(m, m->memo_count);
}

static ser_status reduce_call(machine *m) {
  return reduce(m, false);
}

static ser_status reduce_new(machine *m) {
  return reduce(m, true);
}

static ser_status frozen_set(machine *m) {
  SER_TRY(pop_marked(m));
  return push(m, make(m, SER_PICKLED_OTHER));
}

/* What each operation is: a form that several share, with what it makes and a count (of values, or of its number's
 * bytes), or a function of its own. */
typedef enum { NONE, CONSTANT, INTEGER, LONG, TEXT, SKIP, TAKE, TAKE_MARKED, PUT, PUT_MARKED, KEEP, RECALL, OWN } form;

static const struct {
  form form;
  ser_pickled_kind kind;
  int count;
  ser_status (*own)(machine *m);
} operations[256] = {
    ['N'] = {CONSTANT, SER_PICKLED_NONE, 0, NULL},
    [0x88] = {CONSTANT, SER_PICKLED_BOOL, 1, NULL},
    [0x89] = {CONSTANT, SER_PICKLED_BOOL, 0, NULL},
    [0x8f] = {CONSTANT, SER_PICKLED_OTHER, 0, NULL}, /* a set: what is put into it is left out */
    ['K'] = {INTEGER, SER_PICKLED_INT, 1, NULL},
    ['M'] = {INTEGER, SER_PICKLED_INT, 2, NULL},
    ['J'] = {INTEGER, SER_PICKLED_INT, 4, NULL},
    [0x8a] = {LONG, SER_PICKLED_INT, 1, NULL},
    [0x8b] = {LONG, SER_PICKLED_INT, 4, NULL},
    ['G'] = {SKIP, SER_PICKLED_OTHER, 8, NULL},
    ['X'] = {TEXT, SER_PICKLED_TEXT, 4, NULL},
    [0x8c] = {TEXT, SER_PICKLED_TEXT, 1, NULL},
    [0x8d] = {TEXT, SER_PICKLED_TEXT, 8, NULL},
    ['T'] = {TEXT, SER_PICKLED_TEXT, 4, NULL}, /* a Python 2 wrote it */
    ['U'] = {TEXT, SER_PICKLED_TEXT, 1, NULL},
    ['B'] = {TEXT, SER_PICKLED_OTHER, 4, NULL},
    ['C'] = {TEXT, SER_PICKLED_OTHER, 1, NULL},
    [0x8e] = {TEXT, SER_PICKLED_OTHER, 8, NULL},
    [0x96] = {TEXT, SER_PICKLED_OTHER, 8, NULL},
    [')'] = {TAKE, SER_PICKLED_TUPLE, 0, NULL},
    [0x85] = {TAKE, SER_PICKLED_TUPLE, 1, NULL},
    [0x86] = {TAKE, SER_PICKLED_TUPLE, 2, NULL},
    [0x87] = {TAKE, SER_PICKLED_TUPLE, 3, NULL},
    [']'] = {TAKE, SER_PICKLED_LIST, 0, NULL},
    ['}'] = {TAKE, SER_PICKLED_DICT, 0, NULL},
    ['t'] = {TAKE_MARKED, SER_PICKLED_TUPLE, 0, NULL},
    ['l'] = {TAKE_MARKED, SER_PICKLED_LIST, 0, NULL},
    ['a'] = {PUT, SER_PICKLED_LIST, 1, NULL},
    ['s'] = {PUT, SER_PICKLED_DICT, 2, NULL},
    ['e'] = {PUT_MARKED, SER_PICKLED_LIST, 0, NULL},
    ['u'] = {PUT_MARKED, SER_PICKLED_DICT, 0, NULL},
    [0x90] = {PUT_MARKED, SER_PICKLED_OTHER, 0, NULL},
    ['q'] = {KEEP, SER_PICKLED_OTHER, 1, NULL},
    ['r'] = {KEEP, SER_PICKLED_OTHER, 4, NULL},
    ['h'] = {RECALL, SER_PICKLED_OTHER, 1, NULL},
    ['j'] = {RECALL, SER_PICKLED_OTHER, 4, NULL},
    [0x80] = {OWN, .own = protocol},
    [0x95] = {OWN, .own = frame},
    ['('] = {OWN, .own = mark},
    ['0'] = {OWN, .own = pop},
    ['1'] = {OWN, .own = pop_marked},
    ['2'] = {OWN, .own = duplicate},
    [0x91] = {OWN, .own = frozen_set},
    [0x94] = {OWN, .own = memoize},
    ['c'] = {OWN, .own = global},
    [0x93] = {OWN, .own = stack_global},
    ['i'] = {OWN, .own = instance},
    ['Q'] = {OWN, .own = persistent},
    ['R'] = {OWN, .own = reduce_call},
    [0x81] = {OWN, .own = reduce_new},
    ['b'] = {OWN, .own = build},
};

/* What makes objects of classes (OBJ, NEWOBJ_EX, EXT1 ...), protocol 0's lines, and what pickle does not have. */
static ser_status refuse_operation(const machine *m, unsigned char operation) {
  char *what = ser_format("uses pickle's operation 0x%02x", operation);
  ser_status status = forbidden(m, what, "which no table of tensors needs");
  free(what);
  return status;
}

static ser_status step(machine *m, unsigned char operation) {
  ser_pickled_kind kind = operations[operation].kind;
  size_t count = (size_t)operations[operation].count;
  switch (operations[operation].form) {
  case CONSTANT:
    return push_number(m, kind, (int64_t)count);
  case INTEGER:
    return push_integer(m, count);
  case LONG:
    return push_long(m, count);
  case TEXT:
    return push_text(m, kind, count);
  case SKIP:
    return push_skipped(m, count);
  case TAKE:
    return collect(m, kind, count);
  case TAKE_MARKED:
    return collect_marked(m, kind);
  case PUT:
    return put_into(m, kind, count);
  case PUT_MARKED:
    return put_marked_into(m, kind);
  case KEEP:
    return memo_put_at(m, count);
  case RECALL:
    return memo_get(m, count);
  case OWN:
    return operations[operation].own(m);
  default:
    return refuse_operation(m, operation);
  }
}

static ser_status run(machine *m) {
  for (;;) {
    const unsigned char *operation = NULL;
    SER_TRY(take(m, &operation, 1));
    if (*operation == '.') break;
    SER_TRY(step(m, *operation));
  }
  if (m->mark_count || m->depth != 1) return damaged(m, "ends with other than one value");
  m->pickle->root = m->stack[0];
  return SER_OK;
}

ser_status ser_pickle_read(ser_pickle *pickle, size_t *taken, const char *bytes, size_t size, const char *path,
                           ser_error *err) {
  machine m = {.pickle = pickle, .bytes = (const unsigned char *)bytes, .size = size, .path = path, .err = err};
  memset(pickle, 0, sizeof *pickle);
  ser_status status = run(&m);
  *taken = m.at;
  free(m.stack);
  free(m.memo);
  free(m.marks);
  if (status != SER_OK) ser_pickle_free(pickle);
  return status;
}

void ser_pickle_free(ser_pickle *pickle) {
  for (size_t i = 0; i < pickle->used; i++) {
    ser_pickled *value = &pickle->blocks[i / BLOCK][i % BLOCK];
    if (value->kind == SER_PICKLED_TUPLE || value->kind == SER_PICKLED_LIST || value->kind == SER_PICKLED_DICT)
      free(value->list.items);
    if (value->kind == SER_PICKLED_TENSOR) free(value->tensor);
  }
  for (size_t i = 0; i < pickle->count; i++) free(pickle->blocks[i]);
  free(pickle->blocks);
  memset(pickle, 0, sizeof *pickle);
}

const ser_pickled *ser_pickle_value(const ser_pickle *pickle, size_t index) {
  return &pickle->blocks[index / BLOCK][index % BLOCK];
}

bool ser_pickled_is(const ser_pickled *value, const char *text) {
  size_t size = strlen(text);
  return value->kind == SER_PICKLED_TEXT && value->text.size == size && !memcmp(value->text.bytes, text, size);
}

const ser_pickled *ser_pickled_find(const ser_pickled *dictionary, const char *key) {
  if (dictionary->kind != SER_PICKLED_DICT) return NULL;
  for (size_t i = dictionary->list.count; i >= 2; i -= 2)
    if (ser_pickled_is(dictionary->list.items[i - 2], key)) return dictionary->list.items[i - 1];
  return NULL;
}
