# Two static binaries and a configuration, nothing else. Build them first:
#
#	make build && docker build -t sessiond .
#
# The container needs CAP_NET_ADMIN in its network namespace and no other
# capability, no shell, and no writable file.
FROM scratch
LABEL org.opencontainers.image.title="sessiond" \
	org.opencontainers.image.description="Carrier-Grade NAT tied to the life of the subscriber" \
	org.opencontainers.image.source="https://github.com/sessiond/sessiond" \
	org.opencontainers.image.licenses="Apache-2.0"
COPY bin/sessiond bin/sessionctl /usr/bin/
COPY deploy/compose/sessiond.yaml /etc/sessiond/sessiond.yaml
EXPOSE 1813/udp
# The exit code is not 0 either while sessiond runs and is not ready.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
	CMD ["/usr/bin/sessionctl", "status"]
ENTRYPOINT ["/usr/bin/sessiond"]
CMD ["--config", "/etc/sessiond/sessiond.yaml"]
