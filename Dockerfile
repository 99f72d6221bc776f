# The project on the official Airflow image: `runtime` is what a deployment runs, `local` adds S3 server, Bedrock
# simulator and sample library.
FROM apache/airflow:3.3.2-python3.11 AS runtime

COPY requirements.txt /requirements.txt
RUN pip install --no-cache-dir --requirement /requirements.txt

# Airflow puts only dags, config and plugins on sys.path, but every process imports from include as well.
ENV PYTHONPATH=/opt/airflow/include
COPY --chown=airflow:root include /opt/airflow/include
COPY --chown=airflow:root plugins /opt/airflow/plugins
COPY --chown=airflow:root dags /opt/airflow/dags

FROM runtime AS local

COPY requirements-demo.txt /requirements-demo.txt
RUN pip install --no-cache-dir --requirement /requirements-demo.txt
# A named volume takes the owner of the folder that it covers.
RUN mkdir -p /opt/airflow/local/seaweedfs /opt/airflow/local/bedrock-simulator
