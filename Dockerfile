# syntax=docker/dockerfile:1
# One image with the three services, the tool for topics and dead letters, and the retention job;
# what runs is the command.

# The toolchain of rust-toolchain.toml, which stays outside the image together with the
# development components it names.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
# The caches live in the builder, not in a layer: a later build compiles what has changed.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked \
        --package service-create-order \
        --package service-store \
        --package service-monitoring-order \
        --package ordersaga-kafka \
        --package ordersaga-retention \
 && mkdir /out \
 && cp target/release/service-create-order target/release/service-store \
       target/release/service-monitoring-order target/release/ordersaga-kafka \
       target/release/ordersaga-retention /out/

FROM debian:bookworm-slim
# curl asks /ready for the container's health check; zlib is what the broker's client links to.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends curl zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --no-create-home --shell /usr/sbin/nologin --uid 10001 ordersaga
COPY --from=build /out/ /usr/local/bin/
USER ordersaga
EXPOSE 8000 8001 8002
# Which one to run is for the caller to say.
CMD ["ordersaga-kafka", "--help"]
