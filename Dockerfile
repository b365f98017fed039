# One image for gateway, worker, Flower, the simulator and the operator's commands; docker-compose.yml chooses.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
RUN pip install --no-cache-dir uv==0.13.9
# Bytecode without the time of its source: two builds of one commit have the same files, and a start checks none.
ENV UV_COMPILE_BYTECODE=1 PYC_INVALIDATION_MODE=UNCHECKED_HASH UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /app
# The locked packages are a layer of their own: a change of our code does not fetch them again.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --locked --no-dev --no-install-project
COPY app.py celery_app.py topology.py flowerconfig.py ./
COPY dispatch dispatch
COPY tasks tasks
COPY launcher launcher
COPY examples examples
RUN uv sync --locked --no-dev --no-editable

FROM python:${PYTHON}
# Volumes that are mounted here for the first time take over the owner.
RUN groupadd --gid 10001 robot \
    && useradd --uid 10001 --gid robot --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin robot \
    && install -d -o robot -g robot /var/lib/robot/definitions /var/lib/robot/flower
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY flowerconfig.py ./
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8080
CMD ["gunicorn", "-c", "python:dispatch.gateway.gunicorn_conf", "--no-control-socket", "app:create_app()"]
