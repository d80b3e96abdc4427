# The collector and what it needs, and nothing else; not as root.
#
#     docker build -t polisen-events-collector .
#     docker run -v events:/var/lib/collector -e COLLECTOR_CONTACT=you@example.org polisen-events-collector
# Other features than those of scripts/lib/packaged, such as traces for OpenTelemetry: --build-arg FEATURES=kafka,nats,otlp
FROM rust:1.95-bookworm AS build
ARG FEATURES=
# What --version prints; the repository is not part of the context: --build-arg COMMIT="$(git rev-parse --short=12 HEAD)"
ARG COMMIT=
WORKDIR /src
COPY . .
RUN . scripts/lib/packaged && features=${FEATURES:-$packaged_features} && \
    BUILD_COMMIT="$COMMIT" cargo build --release --locked -p polisen-events-collector --features "$features" && \
    scripts/container/rootfs target/release /rootfs --features "$features"

FROM scratch
COPY --from=build /rootfs /
# Any user can write here who is in the group 0, as the users are that OpenShift makes up.
COPY --from=build --chown=65532:0 /rootfs/var/lib/collector /var/lib/collector
USER 65532:65532
WORKDIR /var/lib/collector
# Also for users without a home folder, on a read-only root.
ENV HOME=/var/lib/collector COLLECTOR_STATE_DIR=/var/lib/collector/state COLLECTOR_CACHE_DIR=/var/lib/collector/cache
# What is collected is kept here.
VOLUME /var/lib/collector
EXPOSE 9464
ENTRYPOINT ["/usr/local/bin/collector"]
# In a container the pages are for those whom its network lets in.
CMD ["watch", "--listen", "0.0.0.0:9464"]
HEALTHCHECK --interval=5m --timeout=10s --start-period=2m CMD ["/usr/local/bin/collector", "health"]
