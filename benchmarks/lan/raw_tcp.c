/* Two processes exchange as many bytes as ranks do for a token, over one plain TCP connection, and
   read memory in between as ranks read their weights.

       raw_tcp listen ADDRESS PORT
       raw_tcp ADDRESS PORT BYTES N_EXCHANGES N_TOKENS WORK_US READ_BYTES LOOKS

   The first serves whoever connects, one after the other; the second tells it what to do. Both send
   BYTES and read BYTES, N_EXCHANGES times a token, and before each of them read their part of
   READ_BYTES of memory, all of it once a token, and then work on until WORK_US have passed. With
   LOOKS 1 they look for bytes without sleeping, with 0 they sleep until there are some.

   Prints for each token the microseconds of computing, waiting and network, as dllama's ranks tell
   them apart: an exchange carries how long its sender computed, the time by which the other computed
   longer is waiting, and the rest of an exchange is network. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BYTES, N_EXCHANGES, N_TOKENS, WORK_US, READ_BYTES, LOOKS, N_NUMBERS };

static const int64_t LEAST[N_NUMBERS] = {8, 1, 1, 0, 0, 0};
static const int64_t MOST[N_NUMBERS] = {1 << 30, 10000, 1000000, 10000000, 1LL << 40, 1};

typedef struct {
    int end; /* a socket that does not block */
    int looks;
} Connection;

typedef struct {
    double computed, waited, network; /* microseconds */
} Times;

static volatile uint64_t sink; /* so that no sum is left out */

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int are_sane(const int64_t *numbers) {
    for (int i = 0; i < N_NUMBERS; i++)
        if (numbers[i] < LEAST[i] || numbers[i] > MOST[i]) return 0;
    return 1;
}

static int socket_at(const char *address, const char *port, struct sockaddr_in *at) {
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    if (inet_pton(AF_INET, address, &at->sin_addr) != 1) fail("address");
    int end = socket(AF_INET, SOCK_STREAM, 0);
    if (end < 0) fail("socket");
    return end;
}

static void prepare(int end) {
    int one = 1;
    setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(end, F_SETFL, O_NONBLOCK);
}

/* Whether a call of send or recv failed for another reason than that it would block. */
static int is_broken(ssize_t done) { return done < 0 && errno != EAGAIN && errno != EWOULDBLOCK; }

/* Sends and reads n bytes, both ways at once. Returns whether the other end was there. */
static int exchange(Connection c, const char *out, char *in, size_t n_out, size_t n_in) {
    size_t sent = 0, got = 0;
    while (sent < n_out || got < n_in) {
        ssize_t s = 0, r = 0;
        if (sent < n_out) {
            s = send(c.end, out + sent, n_out - sent, MSG_NOSIGNAL);
            if (is_broken(s)) return 0;
            if (s > 0) sent += s;
        }
        if (got < n_in) {
            r = recv(c.end, in + got, n_in - got, 0);
            if (r == 0 || is_broken(r)) return 0;
            if (r > 0) got += r;
        }
        if (s <= 0 && r <= 0 && !c.looks) {
            struct pollfd ready = {
                c.end, (sent < n_out ? POLLOUT : 0) | (got < n_in ? POLLIN : 0), 0};
            if (poll(&ready, 1, -1) < 0) fail("poll");
        }
    }
    return 1;
}

static uint64_t sum_of(const uint64_t *values, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += values[i];
    return sum;
}

/* Memory on huge pages where there are some, as weights have it, and all of it there. */
static uint64_t *memory_of(size_t n_bytes) {
    void *found = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) fail("memory");
    madvise(found, n_bytes, MADV_HUGEPAGE);
    memset(found, 1, n_bytes);
    return found;
}

/* Runs all tokens and prints their times. Returns whether the other end was there to the last. */
static int run(Connection c, const int64_t *numbers) {
    size_t n = numbers[BYTES], n_words = numbers[READ_BYTES] / 8, n_exchanges = numbers[N_EXCHANGES];
    size_t read_bytes = 8 * n_words + 8;
    char *out = calloc(1, n), *in = malloc(n);
    uint64_t *memory = memory_of(read_bytes);
    if (!out || !in) fail("memory");
    int is_there = exchange(c, out, in, 8, 8); /* both have their memory */
    double since = now_us();
    for (int64_t token = 0; token < numbers[N_TOKENS] && is_there; token++) {
        Times spent = {0, 0, 0};
        for (size_t i = 0; i < n_exchanges && is_there; i++) {
            size_t first = n_words * i / n_exchanges, last = n_words * (i + 1) / n_exchanges;
            sink = sum_of(memory + first, last - first);
            while (now_us() - since < numbers[WORK_US]) {}
            double started = now_us(), computed = started - since, other;
            memcpy(out, &computed, sizeof computed);
            is_there = exchange(c, out, in, n, n);
            memcpy(&other, in, sizeof other);
            since = now_us();
            double blocked = since - started, waited = other > computed ? other - computed : 0;
            if (waited > blocked) waited = blocked;
            spent.computed += computed;
            spent.waited += waited;
            spent.network += blocked - waited;
        }
        if (is_there) printf("%.2f %.2f %.2f\n", spent.computed, spent.waited, spent.network);
    }
    munmap(memory, read_bytes);
    free(out);
    free(in);
    return is_there;
}

static void serve(const char *address, const char *port) {
    struct sockaddr_in at;
    int one = 1, listening = socket_at(address, port, &at);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listening, (struct sockaddr *)&at, sizeof at) || listen(listening, 1)) fail("bind");
    for (;;) {
        int64_t numbers[N_NUMBERS];
        Connection c = {accept(listening, NULL, NULL), 0};
        if (c.end < 0) fail("accept");
        prepare(c.end);
        if (exchange(c, NULL, (char *)numbers, 0, sizeof numbers) && are_sane(numbers)) {
            c.looks = numbers[LOOKS];
            run(c, numbers);
        }
        close(c.end);
    }
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0); /* whoever ends this has what was measured */
    if (argc == 4 && strcmp(argv[1], "listen") == 0) serve(argv[2], argv[3]);
    int64_t numbers[N_NUMBERS] = {0};
    if (argc == 3 + N_NUMBERS)
        for (int i = 0; i < N_NUMBERS; i++) numbers[i] = atoll(argv[3 + i]);
    if (!are_sane(numbers)) {
        fprintf(stderr, "usage: raw_tcp listen ADDRESS PORT\n"
                        "       raw_tcp ADDRESS PORT BYTES N_EXCHANGES N_TOKENS WORK_US READ_BYTES "
                        "LOOKS\nBYTES is 8 or more\n");
        return 2;
    }
    struct sockaddr_in at;
    Connection c = {socket_at(argv[1], argv[2], &at), numbers[LOOKS]};
    if (connect(c.end, (struct sockaddr *)&at, sizeof at)) fail("connect");
    prepare(c.end);
    if (exchange(c, (char *)numbers, NULL, sizeof numbers, 0) && run(c, numbers)) return 0;
    fprintf(stderr, "the other end has gone away\n");
    return 1;
}
