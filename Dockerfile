# One image with the three services, the tool for topics and dead letters, the retention job and the
# load program; what runs is the command. Needs BuildKit. Without a network: docs/containers.md.

# The toolchain of rust-toolchain.toml, which stays outside the image together with the
# development components it names.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# With a folder `vendor` (made by `cargo vendor`), crates are taken from there and nothing is fetched.
# The caches live in the builder, not in a layer: a later build compiles what has changed.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    if [ -d vendor ]; then \
        mkdir .cargo \
     && printf '[source.crates-io]\nreplace-with = "vendor"\n[source.vendor]\ndirectory = "vendor"\n[net]\noffline = true\n' \
            > .cargo/config.toml; \
    fi \
 && cargo build --release --locked \
        --package service-create-order \
        --package service-store \
        --package service-monitoring-order \
        --package ordersaga-kafka \
        --package ordersaga-retention \
        --package ordersaga-load \
 && mkdir /out \
 && for program in service-create-order service-store service-monitoring-order \
                   ordersaga-kafka ordersaga-retention ordersaga-load; do \
        strip --strip-debug -o /out/$program target/release/$program; \
    done

FROM debian:bookworm-slim
# The same Debian's, so that nothing has to be installed, and building needs no network for it.
COPY --from=build /usr/lib/*-linux-gnu/libssl.so.3 /usr/lib/*-linux-gnu/libcrypto.so.3 /usr/lib/
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/ /usr/local/bin/
# A number, by which an orchestrator can tell that it is not root.
USER 10001:10001
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# For the services; a container that runs another program has to switch it off. Not ready is what
# depends on something that is away: it recovers by itself, and a restart would not help. Where
# there is an address for operators it is asked, since clients cannot keep it busy.
HEALTHCHECK --interval=5s --timeout=3s --retries=3 --start-period=60s \
    CMD ["bash", "-c", "listen=${ADMIN_LISTEN:-$HTTP_LISTEN} && exec 3<> /dev/tcp/127.0.0.1/${listen##*:} && printf 'GET /ready HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ordersaga" \
      org.opencontainers.image.description="A choreographed saga over message queues: three services and their tools" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
# Which one to run is for the caller to say.
CMD ["ordersaga-kafka", "--help"]
