# Troth with its HTTP API: `troth migrate`, `troth serve`, `troth worker`. compose.yaml shows them together.
FROM python:3.11-slim AS build
WORKDIR /source
COPY constraints.txt pyproject.toml LICENSE README.md ./
COPY engine engine
COPY api api
COPY sql sql
COPY migrations migrations
RUN python -m venv /opt/troth \
 && /opt/troth/bin/pip install --no-cache-dir --constraint constraints.txt hatchling \
 && /opt/troth/bin/pip install --no-cache-dir --constraint constraints.txt --no-build-isolation '.[api]' \
 && /opt/troth/bin/pip uninstall --yes hatchling

FROM python:3.11-slim
COPY --from=build /opt/troth /opt/troth
RUN useradd --system --uid 10001 --create-home --home-dir /app troth
ENV PATH=/opt/troth/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
USER troth
EXPOSE 8000
ENTRYPOINT ["troth"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
