"""Models that are not written for manualbp: conversion, interception and coverage."""
