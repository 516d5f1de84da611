"""ComfyUI's door into the pack, and the root of the Python package `dreambooth_dpo`.

Importing it has no side effects and loads nothing: ComfyUI imports every pack at start-up, under a module name of its
own making, and pytest imports it with no package around it. So whatever this file needs from the folders beside it is
imported inside the function that uses it.
"""

from __future__ import annotations

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """ComfyUI's extension object with all nodes of the pack; adds the pack's route to the server.

    A ComfyUI that the pack cannot work in is named in one line of the log, which the nodes' errors repeat.
    """
    import logging

    from comfy_api.latest import ComfyExtension

    from .dpo_core.backends.comfyui.host import refusal
    from .nodes import node_classes
    from .nodes.host.routes import register

    if why := refusal():
        logging.error(why)
    register()

    class DreamBoothDPO(ComfyExtension):
        async def get_node_list(self):
            return node_classes()

    return DreamBoothDPO()
