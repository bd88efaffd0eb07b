# A worker with the example agent. From the repository's root: docker build -f docker/worker.Dockerfile -t duragraph-worker .
# For your own: start from this image, COPY your files, and give their graphs as the command.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements/dev.txt requirements/
RUN sed -e '/--hash=/d' -e 's/ *\\$//' requirements/dev.txt > pins.txt && python -m venv /opt/worker
COPY worker worker
RUN /opt/worker/bin/pip install --no-cache-dir --constraint pins.txt "./worker[openai]"

FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home worker
COPY --from=build /opt/worker /opt/worker
COPY examples/document_agent/agent.py /app/
ENV PATH=/opt/worker/bin:$PATH PYTHONUNBUFFERED=1 DURAGRAPH_URL=http://localhost:8081
WORKDIR /app
USER worker
# SIGTERM, which docker sends, drains: give it longer than the shutdown time-out (docker stop --time 70).
ENTRYPOINT ["duragraph-worker", "run"]
CMD ["agent.py:DocumentAgent"]
