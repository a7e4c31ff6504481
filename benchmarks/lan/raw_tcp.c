/* Two processes exchange as many bytes as ranks do for a token, over one plain TCP connection.

       raw_tcp listen PORT BYTES N_EXCHANGES N_TOKENS WORK_US LOOKS
       raw_tcp ADDRESS PORT BYTES N_EXCHANGES N_TOKENS WORK_US LOOKS

   Both send BYTES and read BYTES, N_EXCHANGES times a token, after WORK_US of work each. With LOOKS
   1 they look for bytes without sleeping, with 0 they sleep until there are some. Prints for each
   token the microseconds that its exchanges took, work not counted; both ends print theirs. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int connected(const char *host, int port) {
    int one = 1, end = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (strcmp(host, "listen") == 0) {
        int listening = end;
        setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(listening, (struct sockaddr *)&at, sizeof at) || listen(listening, 1)) fail("bind");
        end = accept(listening, NULL, NULL);
        close(listening);
        if (end < 0) fail("accept");
    } else {
        if (inet_pton(AF_INET, host, &at.sin_addr) != 1) fail("address");
        if (connect(end, (struct sockaddr *)&at, sizeof at)) fail("connect");
    }
    setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(end, F_SETFL, O_NONBLOCK);
    return end;
}

/* Sends and reads n bytes, both ways at once. */
static void exchange(int end, const char *out, char *in, size_t n, int looks) {
    size_t sent = 0, got = 0;
    while (sent < n || got < n) {
        ssize_t s = sent < n ? send(end, out + sent, n - sent, MSG_NOSIGNAL) : -1;
        if (s > 0) sent += s;
        else if (sent < n && errno != EAGAIN && errno != EWOULDBLOCK) fail("send");
        ssize_t r = got < n ? recv(end, in + got, n - got, 0) : -1;
        if (r > 0) got += r;
        else if (r == 0) exit(1);
        else if (got < n && errno != EAGAIN && errno != EWOULDBLOCK) fail("recv");
        if (s <= 0 && r <= 0 && !looks) {
            struct pollfd ready = {end, (sent < n ? POLLOUT : 0) | (got < n ? POLLIN : 0), 0};
            if (poll(&ready, 1, -1) < 0) fail("poll");
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: raw_tcp ADDRESS|listen PORT BYTES N_EXCHANGES N_TOKENS WORK_US LOOKS\n");
        return 2;
    }
    size_t n = atol(argv[3]);
    int n_exchanges = atoi(argv[4]), n_tokens = atoi(argv[5]), looks = atoi(argv[7]);
    double work_us = atof(argv[6]);
    char *out = calloc(1, n), *in = malloc(n);
    if (!out || !in) fail("memory");
    int end = connected(argv[1], atoi(argv[2]));
    exchange(end, out, in, n < 16 ? n : 16, looks); /* both are there */
    for (int token = 0; token < n_tokens; token++) {
        double spent = 0;
        for (int i = 0; i < n_exchanges; i++) {
            double began = now_us();
            while (now_us() - began < work_us) {}
            began = now_us();
            exchange(end, out, in, n, looks);
            spent += now_us() - began;
        }
        printf("%.2f\n", spent);
    }
    return 0;
}
