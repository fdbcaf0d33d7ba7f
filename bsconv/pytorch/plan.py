"""What a replacer would do, or has done, layer by layer."""

from dataclasses import astuple, dataclass

from ..basics.tables import Table


@dataclass(frozen=True)
class LayerPlan:
    """One convolution, with all the names that it has in the model; the root is called "".

    >>> BSConvU_Replacer().plan(nn.Conv2d(16, 32, 3)).layers[0].description
    '3x3 Conv2d becomes BSConv-U'
    """

    names: tuple[str, ...]
    replaced: bool
    description: str
    parameters_before: int
    parameters_after: int

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]


@dataclass(frozen=True)
class Plan(Table):
    """The convolutions of a model as a table; shared parameters of the model count once.

    >>> len(BSConvU_Replacer().plan(get_model("cifar_resnet20", num_classes=10)).replaced)
    19
    """

    header = ("layer", "what happens, and why", "before", "after")

    layers: tuple[LayerPlan, ...]
    parameters_before: int
    parameters_after: int

    @property
    def replaced(self) -> tuple[LayerPlan, ...]:
        return tuple(layer for layer in self.layers if layer.replaced)

    @property
    def kept(self) -> tuple[LayerPlan, ...]:
        return tuple(layer for layer in self.layers if not layer.replaced)

    @property
    def summary(self) -> str:
        """One line: how many layers are replaced, and the model's parameters before and after."""
        line = f"{len(self.replaced)} of {len(self.layers)} convolutions replaced"
        before, after = self.parameters_before, self.parameters_after
        if not before:
            return line
        numbers = f"{before:,} before, {after:,} after ({after / before:.1%})"
        return f"{line}; parameters of the model: {numbers}"

    def _table_rows(self) -> list[tuple[str | int, ...]]:
        return [
            (", ".join(name or "(root)" for name in names), description, before, after)
            for names, _, description, before, after in map(astuple, self.layers)
        ]
