"""Everything the project needs to run on one machine without an AWS account: S3, Bedrock, Airflow and sample media."""
