"""A Kubeflow cluster: how it is reached, what is uploaded, and its runs.

access.py    Access -> Cluster: kfp's client, signed in, whose every refusal is one message
login.py     the ways to sign in: token, cookie, dex, port-forward
upload.py    the pipeline of a recipe and its version, named by the content
runs.py      submit, follow, and what `rankline runs` asks of a cluster
"""
