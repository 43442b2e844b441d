/* A small real delegate library with libedgetpu's entry points. It fails as often as the file named by
 * FAKE_EDGETPU says (a number), then gives a delegate that takes no operators, so that the CPU runs them. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Delegate {
  void* data;
  int (*prepare)(void*, struct Delegate*);
  int (*copy_from)(void*, struct Delegate*, int, void*);
  int (*copy_to)(void*, struct Delegate*, int, void*);
  void (*free_handle)(void*, struct Delegate*, int*);
  int64_t flags;
  void* builder;
} Delegate;

static int take_nothing(void* context, struct Delegate* delegate) {
  (void)context;
  (void)delegate;
  return 0;
}

static int failures_left(void) {
  const char* path = getenv("FAKE_EDGETPU");
  FILE* file = path ? fopen(path, "r+") : NULL;
  int left = 0;
  if (!file) return 0;
  if (fscanf(file, "%d", &left) != 1) left = 0;
  rewind(file);
  fprintf(file, "%-8d", left > 0 ? left - 1 : 0);
  fclose(file);
  return left;
}

Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
  Delegate* made;
  if (count != 1 || strcmp(keys[0], "device") || strcmp(values[0], "usb:0")) {
    report("No device of that name");
    return NULL;
  }
  if (failures_left() > 0) {
    report("Failed to open the device, is it resetting?");
    return NULL;
  }
  made = calloc(1, sizeof(*made));
  made->prepare = take_nothing;
  return made;
}

void tflite_plugin_destroy_delegate(Delegate* delegate) { free(delegate); }
