/* The confusion matrix as a picture, drawn once for PNG (twice the size, for sharp screens) and SVG: rows actual,
 * columns predicted, each cell its count and its share of the row. One hue from white to dark, so that it reads in
 * grey as in colour; the diagonal is framed, since shade alone does not say what is right. */
#include <cairo-svg.h>
#include <cairo.h>

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "report/figures.h"

static const double margin = 16, least_cell = 88, most_cell = 150, cell_height = 58, title_height = 58, axis = 20,
                    header = 24;
static const double gap = 18, bar_width = 14, bar_labels = 44, png_scale = 2;

/* Sizes of text. */
static const double big = 15, medium = 13, small = 11;

typedef struct {
  cairo_t *cr;
  const ser_metrics *metrics;
  const char *const *labels;
  double names;         /* width of the column of row names */
  double cell;          /* width of a cell */
  double bar;           /* left edge of the scale of shades */
  double left, top;     /* of the cells */
  double width, height; /* of all */
} sheet;

typedef struct {
  double r, g, b;
} colour;
static const colour black = {0.07, 0.07, 0.07}, grey = {0.45, 0.45, 0.45}, white = {1, 1, 1};

static void set_colour(cairo_t *cr, colour c) {
  cairo_set_source_rgb(cr, c.r, c.g, c.b);
}

/* From white at 0 to a dark blue at 1. */
static colour shade(double share) {
  return (colour){1 - 0.96 * share, 1 - 0.80 * share, 1 - 0.58 * share};
}

static double linear(double c) {
  return c <= 0.04045 ? c / 12.92 : pow((c + 0.055) / 1.055, 2.4);
}

/* Black or white, whichever stands out more (the contrast ratio of WCAG 2). */
static colour ink_on(colour c) {
  double luminance = 0.2126 * linear(c.r) + 0.7152 * linear(c.g) + 0.0722 * linear(c.b);
  return (luminance + 0.05) / 0.055 > 1.05 / (luminance + 0.05) ? black : white;
}

static void set_font(cairo_t *cr, double size, bool bold) {
  cairo_select_font_face(cr, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL,
                         bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(cr, size);
}

static double width_of(cairo_t *cr, const char *text) {
  cairo_text_extents_t extents;
  cairo_text_extents(cr, text, &extents);
  return extents.x_advance;
}

/* Text on the baseline y, its left edge (align 0), middle (0.5) or right edge (1) at x; made smaller where it is wider
 * than room. */
static void put(cairo_t *cr, double x, double y, double align, double room, double size, bool bold, const char *text) {
  set_font(cr, size, bold);
  double width = width_of(cr, text);
  if (width > room) {
    set_font(cr, size * room / width, bold);
    width = width_of(cr, text);
  }
  cairo_move_to(cr, x - align * width, y);
  cairo_show_text(cr, text);
}

static void put_free(cairo_t *cr, double x, double y, double align, double room, double size, bool bold, char *text) {
  put(cr, x, y, align, room, size, bold, text);
  free(text);
}

static void lay_out(sheet *s) {
  const ser_metrics *m = s->metrics;
  s->names = 52;
  s->cell = least_cell;
  for (int c = 0; c < m->classes; c++) {
    set_font(s->cr, medium, false);
    double width = width_of(s->cr, s->labels[c]);
    char *support = ser_format("n = %" PRId64, m->support[c]);
    set_font(s->cr, small, false);
    s->names = fmax(s->names, fmax(width, width_of(s->cr, support)));
    s->cell = fmax(s->cell, width + 12);
    free(support);
  }
  s->names = fmin(ceil(s->names), 220);
  s->cell = fmin(ceil(s->cell), most_cell);
  s->left = margin + axis + s->names + 8;
  s->top = margin + title_height + axis + header;
  s->bar = s->left + s->cell * m->classes + gap;
  s->width = fmax(s->bar + bar_width + bar_labels + margin, 450);
  s->height = s->top + cell_height * m->classes + margin;
}

/* Neither "0%" of what there is some of, nor "100%" of what is not all. */
static char *percent_of(double share) {
  if (share < 0.0005) return ser_strdup("< 0.1%");
  if (share > 0.9995 && share < 1) return ser_strdup("> 99.9%");
  return ser_format(share < 0.0995 || (share >= 0.995 && share < 1) ? "%.1f%%" : "%.0f%%", 100 * share);
}

static void draw_cell(const sheet *s, int row, int column) {
  const ser_metrics *m = s->metrics;
  cairo_t *cr = s->cr;
  int64_t count = m->confusion[row][column];
  double share = m->support[row] ? (double)count / (double)m->support[row] : 0;
  double x = s->left + column * s->cell, y = s->top + row * cell_height, room = s->cell - 10;
  colour fill = shade(share);
  cairo_rectangle(cr, x, y, s->cell, cell_height);
  set_colour(cr, fill);
  cairo_fill_preserve(cr);
  cairo_set_source_rgb(cr, 0.75, 0.75, 0.75);
  cairo_set_line_width(cr, 1);
  cairo_stroke(cr);
  set_colour(cr, count ? ink_on(fill) : grey);
  bool bold = row == column;
  char *number = ser_format("%" PRId64, count);
  if (!count) {
    put_free(cr, x + s->cell / 2, y + cell_height / 2 + 5, 0.5, room, medium, bold, number);
    return;
  }
  put_free(cr, x + s->cell / 2, y + cell_height / 2 - 1, 0.5, room, big, bold, number);
  put_free(cr, x + s->cell / 2, y + cell_height / 2 + 16, 0.5, room, small, bold, percent_of(share));
}

static void draw_matrix(const sheet *s) {
  const ser_metrics *m = s->metrics;
  cairo_t *cr = s->cr;
  for (int row = 0; row < m->classes; row++)
    for (int column = 0; column < m->classes; column++) draw_cell(s, row, column);
  set_colour(cr, black);
  cairo_set_line_width(cr, 2);
  for (int c = 0; c < m->classes; c++) {
    cairo_rectangle(cr, s->left + c * s->cell + 1, s->top + c * cell_height + 1, s->cell - 2, cell_height - 2);
    cairo_stroke(cr);
  }
}

static void draw_names(const sheet *s) {
  const ser_metrics *m = s->metrics;
  cairo_t *cr = s->cr;
  double middle = s->left + s->cell * m->classes / 2;
  set_colour(cr, black);
  put(cr, middle, s->top - header - 4, 0.5, 3 * s->cell, small, true, "PREDICTED");
  for (int c = 0; c < m->classes; c++) {
    double x = s->left + (c + 0.5) * s->cell, y = s->top + (c + 0.5) * cell_height;
    set_colour(cr, black);
    put(cr, x, s->top - 8, 0.5, s->cell - 6, medium, false, s->labels[c]);
    put(cr, s->left - 8, y, 1, s->names, medium, false, s->labels[c]);
    set_colour(cr, grey);
    put_free(cr, s->left - 8, y + 15, 1, s->names, small, false, ser_format("n = %" PRId64, m->support[c]));
  }
  set_colour(cr, black);
  cairo_save(cr);
  cairo_translate(cr, margin + 11, s->top + cell_height * m->classes / 2);
  cairo_rotate(cr, -acos(-1) / 2);
  put(cr, 0, 0, 0.5, fmax(cell_height * m->classes, 40), small, true, "ACTUAL");
  cairo_restore(cr);
}

static void draw_title(const sheet *s, const char *title) {
  double room = s->width - 2 * margin;
  set_colour(s->cr, black);
  put(s->cr, margin, margin + 16, 0, room, 18, true, title);
  put_free(s->cr, margin, margin + 38, 0, room, medium, false,
           ser_format("WAR (accuracy) %.2f%%    UAR (mean recall) %.2f%%    n = %" PRId64, 100 * s->metrics->war,
                      100 * s->metrics->uar, s->metrics->total));
}

/* The scale of shades: what share of a row a shade means. */
static void draw_bar(const sheet *s) {
  cairo_t *cr = s->cr;
  enum { STEPS = 50 };
  double x = s->bar, height = cell_height * s->metrics->classes;
  for (int i = 0; i < STEPS; i++) {
    double below = s->top + height * (STEPS - i) / STEPS, above = s->top + height * (STEPS - 1 - i) / STEPS;
    cairo_rectangle(cr, x, floor(above), bar_width, ceil(below) - floor(above));
    set_colour(cr, shade((i + 0.5) / STEPS));
    cairo_fill(cr);
  }
  cairo_rectangle(cr, x, s->top, bar_width, height);
  set_colour(cr, grey);
  cairo_set_line_width(cr, 1);
  cairo_stroke(cr);
  set_colour(cr, black);
  int step = s->metrics->classes > 1 ? 25 : 50;
  for (int percent = 0; percent <= 100; percent += step)
    put_free(cr, x + bar_width + 5, s->top + 4 + (height - 4) * (100 - percent) / 100.0 + (percent == 100 ? 5 : 0), 0,
             bar_labels, small, false, ser_format("%d%%", percent));
  put(cr, x + bar_width + bar_labels, s->top - 10, 1, 80, small, false, "of the row");
}

/* Grey antialiasing without hinting: the same picture whatever this user's screen is set to. */
static void prepare(cairo_t *cr) {
  cairo_font_options_t *options = cairo_font_options_create();
  cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
  cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_NONE);
  cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
  cairo_set_font_options(cr, options);
  cairo_font_options_destroy(options);
}

/* Lays out on a scratch surface: sizes are needed before the real one is made. */
static void measure(sheet *s) {
  cairo_surface_t *scratch = cairo_image_surface_create(CAIRO_FORMAT_A8, 1, 1);
  s->cr = cairo_create(scratch);
  prepare(s->cr);
  lay_out(s);
  cairo_destroy(s->cr);
  cairo_surface_destroy(scratch);
  s->cr = NULL;
}

void ser_confusion_picture_size(int *width, int *height, const ser_metrics *metrics, const char *const *labels) {
  sheet s = {.metrics = metrics, .labels = labels};
  measure(&s);
  *width = (int)ceil(s.width * png_scale);
  *height = (int)ceil(s.height * png_scale);
}

static cairo_status_t collect(void *closure, const unsigned char *data, unsigned int size) {
  ser_text_add(closure, (const char *)data, size);
  return CAIRO_STATUS_SUCCESS;
}

/* cairo numbers the surfaces of a process through ("surface12"): the file's bytes must not depend on what was drawn
 * before. */
static void settle_names(ser_text *svg) {
  static const char key[] = "id=\"surface";
  ser_text out = {0};
  const char *at = svg->data;
  for (const char *hit; (hit = strstr(at, key)); at = hit) {
    ser_text_add(&out, at, (size_t)(hit - at) + sizeof key - 1);
    for (hit += sizeof key - 1; *hit >= '0' && *hit <= '9'; hit++) continue;
  }
  ser_text_puts(&out, at);
  free(svg->data);
  *svg = out;
}

static bool has_suffix(const char *path, const char *suffix) {
  size_t a = strlen(path), b = strlen(suffix);
  return a >= b && !strcmp(path + a - b, suffix);
}

ser_status ser_confusion_picture(const ser_metrics *metrics, const char *const *labels, const char *title,
                                 const char *path, ser_error *err) {
  bool svg = has_suffix(path, ".svg");
  if (!svg && !has_suffix(path, ".png"))
    return ser_fail(err, SER_USAGE, "%s: pictures are written as .png or .svg", path);
  sheet s = {.metrics = metrics, .labels = labels};
  ser_text bytes = {0};
  measure(&s);
  int width, height;
  ser_confusion_picture_size(&width, &height, metrics, labels);
  cairo_surface_t *surface = svg ? cairo_svg_surface_create_for_stream(collect, &bytes, s.width, s.height)
                                 : cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
  s.cr = cairo_create(surface);
  if (!svg) cairo_scale(s.cr, png_scale, png_scale);
  prepare(s.cr);
  set_colour(s.cr, white);
  cairo_paint(s.cr);
  draw_matrix(&s);
  draw_names(&s);
  draw_title(&s, title);
  draw_bar(&s);
  cairo_status_t drawn = cairo_status(s.cr);
  cairo_destroy(s.cr);
  if (drawn == CAIRO_STATUS_SUCCESS && !svg) drawn = cairo_surface_write_to_png_stream(surface, collect, &bytes);
  cairo_surface_finish(surface);
  if (drawn == CAIRO_STATUS_SUCCESS) drawn = cairo_surface_status(surface);
  cairo_surface_destroy(surface);
  if (drawn == CAIRO_STATUS_SUCCESS && svg) settle_names(&bytes);
  ser_status status = drawn == CAIRO_STATUS_SUCCESS
                          ? ser_file_write(path, bytes.data, bytes.size, err)
                          : ser_fail(err, SER_FAILED,
                                     "%s: cairo cannot draw it: %s; see that a font such as DejaVu "
                                     "Sans is installed",
                                     path, cairo_status_to_string(drawn));
  free(bytes.data);
  return status;
}
