/* Reading a configuration from YAML 1.1 through libyaml's document API. Groups are mappings; dotted keys are understood
 * too. Every complaint begins with file:line:column. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "base/config_table.h"
#include "base/file.h"
#include "base/wanted.h"

typedef struct {
  ser_config *config;
  const char *path;
  yaml_document_t *document;
  size_t *seen; /* for each row of the table: the line that gave it, 0 none */
} reader;

/* "file:line:column", as compilers and editors have it; the caller frees it. */
static char *place(const reader *in, const yaml_node_t *node) {
  return ser_format("%s:%zu:%zu", in->path, node->start_mark.line + 1, node->start_mark.column + 1);
}

static const char *scalar(const yaml_node_t *node) {
  return (const char *)node->data.scalar.value;
}

/* A value that is not there: nothing behind the colon, or YAML's null. */
static bool is_nothing(const yaml_node_t *node) {
  if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) return false;
  const char *text = scalar(node);
  return !*text || !strcmp(text, "~") || !strcmp(text, "null");
}

/* Texts only; a NUL within one would hide what is behind it. */
static ser_status take_scalar(const reader *in, const char **text, const yaml_node_t *node, const char *key,
                              ser_error *err) {
  char *where = place(in, node);
  ser_status status = SER_OK;
  if (node->type != YAML_SCALAR_NODE)
    status = ser_fail(err, SER_USAGE, "%s: %s takes single values, not a %s within it", where, key,
                      node->type == YAML_MAPPING_NODE ? "mapping" : "list");
  else if (strlen(scalar(node)) != node->data.scalar.length)
    status = ser_fail(err, SER_USAGE, "%s: %s holds a NUL character; take it out", where, key);
  else
    *text = scalar(node);
  free(where);
  return status;
}

static ser_status read_row(reader *in, const ser_parameter_row *row, const yaml_node_t *value, ser_error *err) {
  ser_status status = SER_OK;
  char *where = place(in, value);
  bool list = row->kind == KIND_INTEGERS || row->kind == KIND_TEXTS;
  const char **items = NULL;
  if (value->type == YAML_MAPPING_NODE) {
    status = ser_fail(err, SER_USAGE, "%s: %s takes %s, not a mapping", where, row->key, list ? "a list" : "a value");
  } else if (value->type == YAML_SEQUENCE_NODE) {
    const yaml_node_item_t *first = value->data.sequence.items.start;
    size_t count = (size_t)(value->data.sequence.items.top - first);
    items = ser_alloc_zero(count + 1, sizeof *items);
    for (size_t i = 0; i < count && status == SER_OK; i++)
      status = take_scalar(in, &items[i], yaml_document_get_node(in->document, first[i]), row->key, err);
    if (status == SER_OK) status = ser_parameter_assign(in->config, row, where, items, count, err);
  } else if (is_nothing(value) && row->kind != KIND_TEXT && !list) {
    status = ser_fail(err, SER_USAGE, "%s: %s has no value; give it one, or take the key out", where, row->key);
  } else {
    const char *text = "";
    status = take_scalar(in, &text, value, row->key, err);
    if (is_nothing(value)) text = "";
    if (status == SER_OK) status = ser_parameter_assign_text(in->config, row, where, text, err);
  }
  free(items);
  free(where);
  return status;
}

static ser_status read_mapping(reader *in, const yaml_node_t *mapping, const char *prefix, ser_error *err);

/* One pair of a mapping; key is the whole dotted key. */
static ser_status read_pair(reader *in, const char *key, const yaml_node_t *name, const yaml_node_t *value,
                            ser_error *err) {
  const ser_parameter_row *row = ser_parameter_find(key);
  char *where = place(in, name);
  ser_status status = SER_OK;
  if (row) {
    size_t *seen = &in->seen[row - ser_parameter_rows];
    if (*seen)
      status = ser_fail(err, SER_USAGE, "%s: %s is given twice (first in line %zu); take one out", where, key, *seen);
    *seen = name->start_mark.line + 1;
    if (status == SER_OK) status = read_row(in, row, value, err);
  } else if (ser_parameter_is_group(key)) {
    if (value->type == YAML_MAPPING_NODE)
      status = read_mapping(in, value, key, err);
    else if (!is_nothing(value))
      status = ser_fail(err, SER_USAGE,
                        "%s: %s is a group of keys, not a value; put its keys below it, indented "
                        "('serenade info config' lists them)",
                        where, key);
  } else {
    status = ser_parameter_unknown(where, key, value->type == YAML_MAPPING_NODE, err);
  }
  free(where);
  return status;
}

static ser_status read_mapping(reader *in, const yaml_node_t *mapping, const char *prefix, ser_error *err) {
  const yaml_node_pair_t *pairs = mapping->data.mapping.pairs.start;
  size_t count = (size_t)(mapping->data.mapping.pairs.top - pairs);
  for (size_t i = 0; i < count; i++) {
    const yaml_node_t *name = yaml_document_get_node(in->document, pairs[i].key);
    const yaml_node_t *value = yaml_document_get_node(in->document, pairs[i].value);
    const char *text = "";
    SER_TRY(take_scalar(in, &text, name, *prefix ? prefix : "the file", err));
    for (size_t j = 0; j < i; j++) {
      const yaml_node_t *other = yaml_document_get_node(in->document, pairs[j].key);
      if (!strcmp(scalar(other), text))
        return ser_fail(err, SER_USAGE, "%s:%zu:%zu: %s%s%s is given twice (first in line %zu); take one out", in->path,
                        name->start_mark.line + 1, name->start_mark.column + 1, prefix, *prefix ? "." : "", text,
                        other->start_mark.line + 1);
    }
    char *key = ser_format("%s%s%s", prefix, *prefix ? "." : "", text);
    ser_status status = read_pair(in, key, name, value, err);
    free(key);
    if (status != SER_OK) return status;
  }
  return SER_OK;
}

static ser_status read_root(reader *in, ser_error *err) {
  const yaml_node_t *root = yaml_document_get_root_node(in->document);
  if (!root || is_nothing(root)) return SER_OK; /* nothing in it: the defaults stand */
  if (root->type != YAML_MAPPING_NODE)
    return ser_fail(err, SER_USAGE,
                    "%s:%zu:%zu: a configuration is a mapping of keys, such as 'train:' and below it "
                    "'  epochs: 60'",
                    in->path, root->start_mark.line + 1, root->start_mark.column + 1);
  return read_mapping(in, root, "", err);
}

static ser_status complain_of_yaml(const yaml_parser_t *parser, const char *path, ser_error *err) {
  const char *problem = parser->problem ? parser->problem : "it cannot be read";
  if (parser->error == YAML_READER_ERROR)
    return ser_fail(err, SER_USAGE, "%s: not valid YAML: %s (byte %zu); save the file as UTF-8", path, problem,
                    parser->problem_offset);
  return ser_fail(err, SER_USAGE, "%s:%zu:%zu: not valid YAML: %s%s%s; mend the line", path,
                  parser->problem_mark.line + 1, parser->problem_mark.column + 1, problem, parser->context ? ", " : "",
                  parser->context ? parser->context : "");
}

ser_status ser_config_read(ser_config *config, const char *path, ser_error *err) {
  ser_status status = SER_OK;
  char *data = NULL;
  size_t size = 0;
  yaml_parser_t parser;
  yaml_document_t document, second;
  SER_TRY(ser_want_file(path, "a configuration, such as configs/reference.yaml", err));
  SER_TRY(ser_file_read(&data, &size, path, err));
  SER_CHECK(yaml_parser_initialize(&parser));
  yaml_parser_set_input_string(&parser, (const unsigned char *)data, size);
  if (!yaml_parser_load(&parser, &document)) {
    status = complain_of_yaml(&parser, path, err);
    goto done;
  }
  reader in = {config, path, &document, ser_alloc_zero(ser_parameter_count, sizeof(size_t))};
  status = read_root(&in, err);
  bool more = status == SER_OK && yaml_document_get_root_node(&document);
  free(in.seen);
  yaml_document_delete(&document);
  if (more) { /* what stands behind "---" would go unread */
    if (!yaml_parser_load(&parser, &second)) {
      status = complain_of_yaml(&parser, path, err);
      goto done;
    }
    const yaml_node_t *root = yaml_document_get_root_node(&second);
    if (root)
      status = ser_fail(err, SER_USAGE, "%s:%zu:%zu: a second document begins here; one file holds one configuration",
                        path, root->start_mark.line + 1, root->start_mark.column + 1);
    yaml_document_delete(&second);
  }
done:
  yaml_parser_delete(&parser);
  free(data);
  return status;
}
