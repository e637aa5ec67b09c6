# The image of Hookward, for all roles: HOOKWARD_ROLE is all, api or dispatch.
#
#     docker build --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" \
#         --build-arg REVISION="$(git rev-parse HEAD)" --tag hookward:0.1.0 .
#
# With the commit's time the command is built as .ci/reproducible builds it. Without it the
# dependencies stay cached from one commit to the next.
#
# Base images are named by their tags. For a release pin them to what was tested, by
# `docker buildx imagetools inspect rust:1.95.0-bookworm` and NAME:TAG@sha256:….

FROM rust:1.95.0-bookworm AS build
WORKDIR /build
ARG SOURCE_DATE_EPOCH=0
COPY .ci/release .ci/release

# The dependencies alone, with sources that are empty: a layer that changes with Cargo.lock.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it tests/nemesis benches/delivery \
    && for file in build.rs src/main.rs tests/it/main.rs tests/nemesis/main.rs \
        benches/delivery/main.rs; do echo 'fn main() {}' >"$file"; done \
    && touch src/lib.rs \
    && .ci/release

COPY proto proto
COPY profiles profiles
COPY catalog catalog
COPY build.rs build.rs
COPY src src
# Cargo goes by times, and those of the copies are older than what was built from empty files.
RUN touch build.rs src/lib.rs src/main.rs \
    && .ci/release \
    && mkdir data

FROM gcr.io/distroless/cc-debian12:nonroot
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Hookward" \
    org.opencontainers.image.description="Durable, signed webhook delivery for healthcare platforms" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.revision="$REVISION"
COPY LICENSE /usr/share/doc/hookward/
COPY --from=build /build/target/release/hookward /usr/local/bin/hookward
# A SQLite file lies in the working directory. Nothing else is written: the root may be read-only.
COPY --from=build --chown=65532:65532 /build/data /var/lib/hookward
WORKDIR /var/lib/hookward
USER 65532:65532
# gRPC; health and metrics. Both listen on loopback until HOOKWARD_GRPC_LISTEN, with
# HOOKWARD_AUTH, and HOOKWARD_ADMIN_LISTEN say otherwise.
EXPOSE 50051 8080
STOPSIGNAL SIGTERM
# Whether it runs, not whether it is ready: a restart brings no database back.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/usr/local/bin/hookward", "health"]
ENTRYPOINT ["/usr/local/bin/hookward"]
CMD ["serve"]
