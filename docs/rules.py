"""How the documentation shows ops: by their own names, with the derivation as it was typeset."""

import re

import griffe


class Rules(griffe.Extension):
    """`conv = Rule(conv_fwd, ...)` becomes a function `conv` with the arguments of `conv_fwd`."""

    def on_module(self, *, mod: griffe.Module, **_) -> None:
        if mod.docstring is not None:
            title, _, derivation = mod.docstring.value.partition("\n\n")
            mod.docstring.value = f"{title}\n\n```text\n{derivation}\n```\n" if derivation else title
        for name, member in list(mod.members.items()):
            forward = mod.members.get(f"{name}_fwd")
            if forward is None or member.is_alias or not member.is_attribute:
                continue
            mod.del_member(name)
            mod.del_member(f"{name}_fwd")
            forward.name, forward.returns = name, None
            mod.set_member(name, forward)
            backward = mod.members.get(f"{name}_bwd")
            if backward is not None and forward.docstring is not None:
                forward.docstring.value += f"\n\nIts backward:\n\n```python\n{backward.source}\n```"

    def on_function(self, *, func: griffe.Function, **_) -> None:
        if func.docstring is not None:  # the axes of [N, *S, C] are not Markdown's emphasis
            func.docstring.value = re.sub(r"\*(?=[A-Z]\b)", r"\\*", func.docstring.value)
