"""The kind of array that samples and what is measured of them are held in."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
