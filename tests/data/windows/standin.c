/* Stands in for the programs that install.bat calls, by the name it is copied to: curl, certutil, tar, uv, py, python.
   Every call is noted in FAKE_LOG. What it answers comes from other FAKE_ variables. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *said(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static int copy(const char *from, const char *to) {
    char buffer[65536];
    size_t size;
    FILE *source = fopen(from, "rb"), *target = source ? fopen(to, "wb") : NULL;
    if (!target) return 22;
    while ((size = fread(buffer, 1, sizeof buffer, source)) > 0) fwrite(buffer, 1, size, target);
    fclose(source);
    return fclose(target) ? 23 : 0;
}

static int is(const char *program, const char *name) { return !strncmp(program, name, strlen(name)); }

int main(int count, char **words) {
    const char *program = words[0];
    for (const char *at = words[0]; *at; at++)
        if (*at == '\\' || *at == '/') program = at + 1;
    FILE *log = fopen(said("FAKE_LOG"), "ab");
    if (log) {
        fprintf(log, "%s", program);
        for (int i = 1; i < count; i++) fprintf(log, "|%s", words[i]);
        fprintf(log, "\n");
        fclose(log);
    }
    if (is(program, "curl")) {
        const char *target = "";
        for (int i = 1; i + 1 < count; i++)
            if (!strcmp(words[i], "-o")) target = words[i + 1];
        return *said("FAKE_OFFLINE") ? 6 : copy(said("FAKE_ZIP"), target);
    }
    if (is(program, "certutil")) {
        printf("SHA256 hash of %s:\r\n%s\r\nCertUtil: -hashfile command completed successfully.\r\n", words[2],
               said("FAKE_SHA"));
        return 0;
    }
    if (is(program, "tar")) {
        char target[1024];
        snprintf(target, sizeof target, "%s\\uv.exe", words[4]);
        return copy(words[2], target);
    }
    if (is(program, "uv")) {
        if (!strcmp(words[1], "--version")) printf("uv 0.13.0 (stand-in)\r\n");
        else if (!strcmp(words[2], "install")) return *said("FAKE_NOPYTHON") ? 2 : 0;
        else printf("%s\r\n", said("FAKE_PYTHON"));
        return 0;
    }
    if (is(program, "py.") || !strcmp(program, "py")) {
        if (*said("FAKE_PY")) printf("%s\r\n", said("FAKE_PY"));
        return *said("FAKE_PY") ? 0 : 103;
    }
    return atoi(said("FAKE_EXIT"));
}
