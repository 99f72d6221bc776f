"""A local stand-in for Amazon Bedrock's runtime API with the TwelveLabs Marengo models.

It speaks the wire protocol of InvokeModel, StartAsyncInvoke, GetAsyncInvoke and ListAsyncInvokes, so an unmodified
boto3 or aiobotocore works with it; it checks requests against botocore's own service model and the models' documented
rules, reads the media from a real S3 server, decodes them, and writes ``manifest.json`` and ``output.json`` there.
The vectors are not Marengo's: see ``README.md``.

Start it with ``python -m bedrock_simulator``.
"""
