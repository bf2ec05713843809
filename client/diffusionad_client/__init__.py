"""Score images against DiffusionAD models on Triton.

    from diffusionad_client import Client

    inspection = Client("127.0.0.1:8001").inspect("part.png")
    print(inspection.verdict, inspection.score)
"""

__version__ = "0.1.0"
