"""Every setting once: name, default, unit, range and source. YAML files, nodes and docs take them from here."""

from .base import Settings as Settings
from .base import Widget as Widget
from .base import from_widgets as from_widgets
from .base import settings_of_widgets as settings_of_widgets
from .base import widget_fields as widget_fields
from .evaluation import EvaluationSettings as EvaluationSettings
from .evaluation import StopSettings as StopSettings
from .evaluation import StrengthSettings as StrengthSettings
from .loop import LoopSettings as LoopSettings
from .loop import PersonalizeSettings as PersonalizeSettings
from .loop import too_few_to_vary as too_few_to_vary
from .pairs import OwnPairSettings as OwnPairSettings
from .pairs import PairSettings as PairSettings
from .photos import PhotoSettings as PhotoSettings
from .sampling import AUTO_CHUNK as AUTO_CHUNK
from .sampling import SamplingSettings as SamplingSettings
from .training import DRIFTING as DRIFTING
from .training import GROUPED as GROUPED
from .training import AdapterSettings as AdapterSettings
from .training import TrainSettings as TrainSettings
