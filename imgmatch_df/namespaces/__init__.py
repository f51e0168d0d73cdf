"""The namespace `imgmatch` of Polars objects: methods that call the functions of the same names."""

from imgmatch_df.namespaces.columns import ImgMatchExpr, ImgMatchSeries
from imgmatch_df.namespaces.frames import ImgMatchDataFrame, ImgMatchLazyFrame

__all__ = ["ImgMatchDataFrame", "ImgMatchExpr", "ImgMatchLazyFrame", "ImgMatchSeries"]
